"""Numbers that others published, for a column of their own: other protocols, other data, other sizes of network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Accuracy in per cent, as the source gives it."""

    data_set: str
    method: str
    accuracy: float
    source: str


FER2013 = (
    Published("fer2013", "people", 65.0, "Goodfellow et al. 2013: 65 +- 5"),
    Published("fer2013", "VGGNet, one network, no extra data", 73.28, "Khaireddin and Chen 2021"),
    Published("fer2013", "ResMaskingNet", 74.14, "Pham, Vu, Tran 2021"),
)
ATTRIBUTES = (
    Published("celeba", "LNets+ANet", 87.33, "Liu et al. 2015"),
    Published("celeba", "FaRL-B", 91.88, "Zheng et al. 2022"),
    Published("celeba", "MCF", 91.33, "Wang et al. 2023"),
    Published("lfwa", "LNets+ANet", 83.85, "Liu et al. 2015"),
    Published("lfwa", "SSPL", 86.53, "Shu et al. 2021"),
)
EXPRESSIONS = (
    Published("rafdb", "FaRL-B", 88.31, "Zheng et al. 2022"),
    Published("rafdb", "MCF", 86.86, "Wang et al. 2023"),
    Published("rafdb", "POSTER++", 92.21, "Mao et al. 2023"),
    Published("affectnet", "FaRL-B", 64.85, "Zheng et al. 2022, unverified"),
    Published("affectnet", "POSTER++", 67.49, "Mao et al. 2023"),
)
PUBLISHED = (*FER2013, *ATTRIBUTES, *EXPRESSIONS)
