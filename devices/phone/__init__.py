"""Phones through adb and Linux boards through their own shell, by TFLite's benchmark_model."""
