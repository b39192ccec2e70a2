"""The former name of a room; says where its modules are now."""

raise ImportError(
    "tapetum.engine has become tapetum.runs (recipe, checkpoint, run_folder, sources), "
    "tapetum.training (train) and tapetum.inference (evaluate, calibrate, embeddings)"
)
