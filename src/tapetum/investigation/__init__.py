"""The former name of a room; says where its modules are now."""

raise ImportError(
    "tapetum.investigation has become tapetum.searching (find, query, case, retention) and "
    "tapetum.indexing (index, shards)"
)
