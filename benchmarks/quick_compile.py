"""XLA's flags for programs that run once: compiling takes nearly all the time of a short run."""

from importlib import metadata

# Together they cut compile time to a third. The older code generator compiles faster; jaxlib 0.11
# has removed it, and a process that is given an unknown flag ends at once.
HAS_OLD_EMITTERS = tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11)
FLAGS = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if HAS_OLD_EMITTERS else ""
)
