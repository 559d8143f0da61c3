"""Models held against published experiments, every row of the table.

:func:`compare` runs what a row asks for. Rows of kind ``none`` and ``schema`` (networks, plans, experiments
whose inputs were not published) are listed and not compared. Inputs are told apart as published (*pinned*),
from memory, *assumed* by us, and *fitted* to that very experiment; of the last there are three in all.

>>> rows = {row.experiment_id: row for row in shipped_experiments()}
>>> [found.agrees for found in compare(rows["liu2023_1002km"])]
[True]

The table is ``experiments.yaml`` beside this file; a table of your own has the same form.
"""

from openqci.links.experiments.comparison import Comparison
from openqci.links.experiments.models import compare, model_names
from openqci.links.experiments.rows import (
    Experiment,
    experiments_schema,
    read_experiments,
    shipped_experiments,
)

__all__ = [
    "Comparison",
    "Experiment",
    "compare",
    "experiments_schema",
    "model_names",
    "read_experiments",
    "shipped_experiments",
]
