//! The driver's log, and notifications that nobody sends here.

/// The end of the log.
#[op(0x0830, since = 12090)]
#[sync]
fn cuLogsCurrent(#[out] iterator_out: *mut CUlogIterator, flags: c_uint);

/// Writes the log to a file of the program.
#[op(since = 12090)]
#[via(logs_dump)]
fn cuLogsDumpToFile(iterator: *mut CUlogIterator, pathToFile: *const c_char, flags: c_uint);

/// Writes the log to memory.
#[op(since = 12090)]
#[via(logs_dump)]
fn cuLogsDumpToMemory(iterator: *mut CUlogIterator, buffer: *mut c_char, size: *mut usize, flags: c_uint);

/// The log from `iterator` (u64::MAX: from its beginning) in at most `max_len` bytes with its NUL, and its end.
#[op(0x0831)]
#[sync]
#[internal]
fn logs_dump(
    iterator: u64,
    max_len: u64,
    flags: u32,
    #[out] end: *mut u32,
    #[data_out] text: *mut u8,
);

/// Registers a function for log messages. It is not called: messages are on the host, and can be fetched.
#[op(since = 12090)]
#[local]
fn cuLogsRegisterCallback(
    callbackFunc: CUlogsCallback,
    userData: *mut c_void,
    callback_out: *mut CUlogsCallbackHandle,
);

/// Takes such a registration back.
#[op(since = 12090)]
#[local]
fn cuLogsUnregisterCallback(callback: CUlogsCallbackHandle);

/// Registers a function for notifications of a device. It is not called: the memory budget that it tells of is not set here.
#[op(since = 12040)]
#[local]
fn cuDeviceRegisterAsyncNotification(
    device: CUdevice,
    callbackFunc: CUasyncCallback,
    userData: *mut c_void,
    callback: *mut CUasyncCallbackHandle,
);

/// Takes such a registration back.
#[op(since = 12040)]
#[local]
fn cuDeviceUnregisterAsyncNotification(device: CUdevice, callback: CUasyncCallbackHandle);
