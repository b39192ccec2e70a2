"""Rows of a gallery as Arrow has them: the columns of the table, and batches for it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.gallery.schema import REALS, TEXTS, WHOLES


def table_schema(dimension: int) -> Any:
    """Columns of the table."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in TEXTS]
    fields += [pa.field(name, pa.int32(), nullable=False) for name in WHOLES]
    fields += [pa.field(name, pa.float64(), nullable=False) for name in REALS]
    fields.append(pa.field("stamp", pa.int64(), nullable=False))
    fields.append(pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False))
    return pa.schema(fields)


def to_arrow(columns: dict[str, list[Any]], vectors: NDArray[np.float32]) -> Any:
    """A batch of rows for the table.

    Args:
        vectors: (N, D).
    """
    import pyarrow as pa

    schema = table_schema(vectors.shape[1])
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema if field.name != "vector"]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]))
    return pa.Table.from_arrays(arrays, schema=schema)


def matrix_of(table: Any, dimension: int) -> NDArray[np.float32]:
    """(N, D) vectors of rows of the table."""
    if table.num_rows == 0:
        return np.empty((0, dimension), dtype=np.float32)
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(table.num_rows, dimension), dtype=np.float32)
