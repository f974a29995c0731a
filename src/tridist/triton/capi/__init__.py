"""The C API of the Triton core (``tritonserver.h``): constants, signatures, and the loader of the library."""
