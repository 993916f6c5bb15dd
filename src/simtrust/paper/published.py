"""The numbers that the paper publishes, as data: returns with their deviation over seeds.

Niu et al. 2022, Tables 1, 2, 4, 5, 6 and 7. By the name of the cell (`simtrust.paper.cells`): what several
tables show is one number, which all of them print alike. SAC does not depend on the log, nor CQL on the
shift. And what the text tells of the robot.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Published(NamedTuple):
    """An average return, unnormalised."""

    mean: float
    std: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:,.0f} ± {self.std:,.0f}"


SEEDS = 5
"""Of Table 1, and here of Tables 2 and 5 as well, which do not say."""
FEWER_SEEDS = 3
"""Of Tables 6 and 7, of H2O(v) in Table 4, and of Figure 6."""

_SOURCES = """
halfcheetah-gravity                     sac 4513±513
halfcheetah-friction                    sac 2684±2646
halfcheetah-joint-noise                 sac 4137±805
walker2d-gravity                        sac 1233±841
walker2d-friction                       sac 2879±569
walker2d-joint-noise                    sac 852±386
halfcheetah-random                      cql 2465±180
halfcheetah-medium                      cql 6066±73
halfcheetah-medium-replay               cql 5774±214
halfcheetah-medium-expert               cql 3748±892
walker2d-medium-replay                  cql 1445±1077
"""

_BOTH = """
halfcheetah-medium-gravity              darc 5011±456 darc_plus 5706±440 h2o 7085±416 h2o_v 7040±517
halfcheetah-medium-friction             darc 6113±104 darc_plus 6047±112 h2o 6848±445 h2o_v 5132±2041
halfcheetah-medium-joint-noise          darc 5484±171 darc_plus 5314±520 h2o 7212±236 h2o_v 7116±24
halfcheetah-medium-replay-gravity       darc 5105±460 darc_plus 4958±540 h2o 6813±289 h2o_v 6589±281
halfcheetah-medium-replay-friction      darc 5503±263 darc_plus 5288±100 h2o 5928±896 h2o_v 6637±456
halfcheetah-medium-replay-joint-noise   darc 5137±225 darc_plus 5230±209 h2o 6747±427 h2o_v 6822±45
halfcheetah-medium-expert-gravity       darc 4759±353 darc_plus 72±109 h2o 4707±779 h2o_v 4798±681
halfcheetah-medium-expert-friction      darc 9038±1480 darc_plus 7989±3999 h2o 6745±562 h2o_v 4726±2878
halfcheetah-medium-expert-joint-noise   darc 5288±104 darc_plus 733±767 h2o 5280±1329 h2o_v 4623±995
walker2d-medium-replay-gravity          darc 1987±965 darc_plus 1618±1446 h2o 2187±1103
walker2d-medium-replay-friction         darc 2518±1244 darc_plus 2375±579 h2o 3656±582
walker2d-medium-replay-joint-noise      darc 64±115 darc_plus 630±561 h2o 2998±854
halfcheetah-random-gravity              darc 357±617 darc_plus -97±121 h2o 4602±223
halfcheetah-random-friction             darc 537±250 darc_plus 425±99 h2o 4862±1608
halfcheetah-medium-replay-gravity       h2o_a 6675±179 h2o_dr 4721±196 h2o_a_dr 5223±198
halfcheetah-medium-replay-gravity       h2o_reg 6501±147 h2o_reg_dr 5290±356 h2o_reverse_kl 6476±129
halfcheetah-medium-gravity              h2o_reverse_kl 7065±170
halfcheetah-medium-expert-gravity       h2o_reverse_kl 4709±274
"""

_D2C = """
halfcheetah-medium-gravity              h2o 6690±93
halfcheetah-medium-friction             h2o 6967±259
halfcheetah-medium-joint-noise          h2o 7032±82
halfcheetah-medium-replay-gravity       h2o 6543±230
halfcheetah-medium-replay-friction      h2o 5506±816
halfcheetah-medium-replay-joint-noise   h2o 6873±150
halfcheetah-medium-expert-gravity       h2o 5112±436
halfcheetah-medium-expert-friction      h2o 4890±177
halfcheetah-medium-expert-joint-noise   h2o 5268±1493
"""


def seeds_of(task: str, level: str | None, recipe: str) -> int:
    """The training runs behind the paper's numbers for a task such as ``"halfcheetah"``."""
    fewer = task == "walker2d" or level == "random" or recipe == "h2o_v"
    return FEWER_SEEDS if fewer else SEEDS


def _read(text: str) -> dict[str, Published]:
    found = {}
    for line in filter(None, text.splitlines()):
        setting, *words = line.split()
        task, level = setting.split("-")[0], "random" if "-random" in setting else None
        for recipe, number in zip(words[::2], words[1::2], strict=True):
            mean, std = (float(part) for part in number.split("±"))
            found[f"{setting}-{recipe}"] = Published(mean, std, seeds_of(task, level, recipe))
    return found


PUBLISHED: Mapping[str, Published] = _read(_SOURCES + _BOTH)
"""By cell: what the paper says."""
D2C: Mapping[str, Published] = _read(_D2C)
"""By cell: what the library D2C says of its own H2O. Its number of seeds is assumed."""

CQL_FALLS = 12.0
"""Seconds after which CQL falls where the robot is to stand still (Section 6.3, Figure 2(c))."""
H2O_STEADY = 11.0
"""Seconds after which H2O is steady there (the same)."""
TARGET_SPEED = 0.2
"""m/s at which the robot is to move straight (Eq. 35)."""
CQL_SPEED = 0.4
"""m/s, which CQL then nearly reaches: twice what is asked (Section 6.3, Figure 2(d))."""
