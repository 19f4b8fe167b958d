//! Memory and semaphores of graphics drivers. They cannot be imported (`unhandled.tsv`), so there are none to destroy.

/// Destroys external memory.
#[op(since = 10000)]
#[local]
fn cuDestroyExternalMemory(extMem: CUexternalMemory);

/// Destroys an external semaphore.
#[op(since = 10000)]
#[local]
fn cuDestroyExternalSemaphore(extSem: CUexternalSemaphore);
