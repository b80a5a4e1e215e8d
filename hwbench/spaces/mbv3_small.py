"""``mbv3_small``: the OFA-MobileNetV3 structure for images of 28 to 32 pixels.

Small enough to be trained in minutes on two cores, with the same decisions as ``ofa_mbv3``, so
that a search method can be tried on real accuracy before ImageNet. At 28 pixels its networks
take 1.5 to 8.6 million MACs.
"""

from __future__ import annotations

from dataclasses import replace

from hwbench.spaces.mbv3 import MobileNetV3Space, Skeleton, Unit

#: One grey channel and ten classes: digits, Fashion-MNIST (28 pixels, or 32 when padded). The
#: stem and the last unit keep the size, so that the layers end at 4x4: on less than that a 7x7
#: kernel would do no more than a 3x3.
MBV3_SMALL = Skeleton(
    name="mbv3_small",
    resolutions=(28, 32),
    stem=8,
    stem_stride=1,
    units=(
        Unit(8, stride=2, se=False, activation="relu"),
        Unit(16, stride=2, se=True, activation="relu"),
        Unit(24, stride=2, se=False, activation="hswish"),
        Unit(32, stride=1, se=True, activation="hswish"),
        Unit(40, stride=1, se=True, activation="hswish"),
    ),
    head=240,
    mix=256,
    classes=10,
    in_channels=1,
)

#: The same for colour images of the same sizes (CIFAR-10).
MBV3_SMALL_RGB = replace(MBV3_SMALL, name="mbv3_small_rgb", in_channels=3)


def mbv3_small() -> MobileNetV3Space:
    """Grey images."""
    return MobileNetV3Space(MBV3_SMALL)


def mbv3_small_rgb() -> MobileNetV3Space:
    """Colour images."""
    return MobileNetV3Space(MBV3_SMALL_RGB)
