"""``ofa_mbv3``: the OFA-MobileNetV3 space, the one of Once-for-All, PNAG and many others.

2e19 networks at each input resolution. At 224 they take 193 to 843 million MACs, at 128 66
to 280 million.
"""

from __future__ import annotations

from hwbench.spaces.mbv3 import MobileNetV3Space, Skeleton, Unit

#: Widths, strides, squeeze-and-excitation and activations as in the released code, at the width
#: multiplier 1.2 of the published networks. The released supernet takes any resolution that
#: is a multiple of 4; every fourth of them keeps the choice small.
OFA_MBV3 = Skeleton(
    name="ofa_mbv3",
    resolutions=tuple(range(128, 225, 16)),
    stem=16,
    stem_stride=2,
    units=(
        Unit(24, stride=2, se=False, activation="relu"),
        Unit(40, stride=2, se=True, activation="relu"),
        Unit(80, stride=2, se=False, activation="hswish"),
        Unit(112, stride=1, se=True, activation="hswish"),
        Unit(160, stride=2, se=True, activation="hswish"),
    ),
    head=960,
    mix=1280,
    classes=1000,
    width=1.2,
)


def ofa_mbv3() -> MobileNetV3Space:
    """The space as published. Another width or set of resolutions needs another name:
    ``MobileNetV3Space(dataclasses.replace(OFA_MBV3, name="ofa_w10", width=1.0))``.
    """
    return MobileNetV3Space(OFA_MBV3)
