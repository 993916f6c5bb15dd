"""Instances in this process as one vector environment, and the infos of all instances as one."""

from typing import Any

from gymnasium.vector import SyncVectorEnv, VectorEnv


class TolerantInfos(VectorEnv):
    """A vector environment in which infos that cannot be put side by side stop nothing.

    Gymnasium makes one array of an entry's values, of the first value's type and shape, and raises where
    another has none that fits: a list of contacts whose length varies, say. Such a value is left out, as if
    the instance had not told it: its ``_key`` is False. Nothing here learns from infos.
    """

    def _add_info(
        self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int
    ) -> dict[str, Any]:
        for key, value in env_info.items():
            try:
                vector_infos = super()._add_info(vector_infos, {key: value}, env_num)
            except Exception:
                continue
        return vector_infos


class SideBySide(TolerantInfos, SyncVectorEnv):
    """`gymnasium.vector.SyncVectorEnv` with `TolerantInfos`."""
