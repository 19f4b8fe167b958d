/* A libcuda to link against where no driver is installed: its soname and its symbols. Programs never run with it. */

#define SYMBOL(name)                                                                                                   \
    int name(void);                                                                                                    \
    int name(void) { return 34; } /* CUDA_ERROR_STUB_LIBRARY */
#include "driver_symbols.inc"
