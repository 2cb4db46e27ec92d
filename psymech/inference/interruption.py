"""The mark of a run that was interrupted, in words."""

import json

import xarray as xr

from psymech import names


def interrupted(tree: xr.DataTree) -> str:
    """Say in words what an interrupted run left, empty for a run that came to its end.

    Examples
    --------
    >>> tree = xr.DataTree()
    >>> tree.attrs["psymech_interrupted"] = '{"asked": 100, "made": [100, 40, 0], "kept_chains": [0, 1]}'
    >>> interrupted(tree)
    'Sampling was interrupted: its chains made 100, 40, 0 of 100 draws, and 40 of each of 2 chains are kept.'
    """
    text = tree.attrs.get(names.ATTR_INTERRUPTED)
    if text is None:
        return ""
    told = json.loads(text)
    kept = min(told["made"][k] for k in told["kept_chains"])
    chains = len(told["kept_chains"])
    return (
        f"Sampling was interrupted: its chains made {', '.join(map(str, told['made']))} of {told['asked']} draws, and "
        f"{kept} of each of {chains} {'chain is' if chains == 1 else 'chains are'} kept."
    ).replace(f"of each of {chains} chain is", "of one chain are")
