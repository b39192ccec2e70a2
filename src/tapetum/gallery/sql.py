"""Filters in the SQL of LanceDB's tables."""

from tapetum.core.types import Modality
from tapetum.gallery.filters import Among, And, Compare, Filter, Not, Or, Value


def render_sql(tree: Filter) -> str:
    """A checked filter in the table's SQL."""
    match tree:
        case Compare(field, sign, value):
            return f"{field} {'=' if sign == '==' else sign} {_literal(value)}"
        case Among(field, values):
            return f"{field} IN ({', '.join(map(_literal, values))})"
        case And(parts):
            return "(" + " AND ".join(map(render_sql, parts)) + ")"
        case Or(parts):
            return "(" + " OR ".join(map(render_sql, parts)) + ")"
        case Not(part):
            return f"(NOT {render_sql(part)})"


def _literal(value: Value) -> str:
    if isinstance(value, Modality):
        return str(int(value))
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"CAST('{value!r}' AS DOUBLE)"
