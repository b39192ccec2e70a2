"""The former name of a room; says where its modules are now."""

raise ImportError("tapetum.runtime has become tapetum.inference")
