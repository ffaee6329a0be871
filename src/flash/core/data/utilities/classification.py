"""Lightning Flash's import path of the target formatters; only names of `targets.formatters`."""

from flash.text.classification.targets.formatters import (
    CommaDelimitedMultiLabelTargetFormatter,
    MultiBinaryTargetFormatter,
    MultiLabelTargetFormatter,
    MultiNumericTargetFormatter,
    MultiSoftTargetFormatter,
    SingleBinaryTargetFormatter,
    SingleLabelTargetFormatter,
    SingleNumericTargetFormatter,
    SpaceDelimitedTargetFormatter,
    TargetFormatter,
)

__all__ = [
    "CommaDelimitedMultiLabelTargetFormatter",
    "MultiBinaryTargetFormatter",
    "MultiLabelTargetFormatter",
    "MultiNumericTargetFormatter",
    "MultiSoftTargetFormatter",
    "SingleBinaryTargetFormatter",
    "SingleLabelTargetFormatter",
    "SingleNumericTargetFormatter",
    "SpaceDelimitedTargetFormatter",
    "TargetFormatter",
]
