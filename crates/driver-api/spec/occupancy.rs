//! How many blocks fit.

/// Blocks of a kernel that fit on a multiprocessor.
#[op(0x0520, since = 6050)]
#[sync]
#[custom]
fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    #[out] numBlocks: *mut c_int,
    func: CUfunction,
    blockSize: c_int,
    dynamicSMemSize: usize,
);

/// Blocks of a kernel that fit on a multiprocessor, with flags.
#[op(0x0521, since = 7000)]
#[sync]
#[custom]
fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    #[out] numBlocks: *mut c_int,
    func: CUfunction,
    blockSize: c_int,
    dynamicSMemSize: usize,
    flags: c_uint,
);

/// Dynamic shared memory that a block may use for a number of blocks to fit.
#[op(0x0522, since = 10020)]
#[sync]
#[custom]
fn cuOccupancyAvailableDynamicSMemPerBlock(
    #[out] dynamicSmemSize: *mut usize,
    func: CUfunction,
    numBlocks: c_int,
    blockSize: c_int,
);

/// Block size with the best occupancy.
#[op(since = 6050)]
#[via(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)]
fn cuOccupancyMaxPotentialBlockSize(
    minGridSize: *mut c_int,
    blockSize: *mut c_int,
    func: CUfunction,
    blockSizeToDynamicSMemSize: CUoccupancyB2DSize,
    dynamicSMemSize: usize,
    blockSizeLimit: c_int,
);

/// Block size with the best occupancy, with flags.
#[op(since = 7000)]
#[via(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)]
fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    minGridSize: *mut c_int,
    blockSize: *mut c_int,
    func: CUfunction,
    blockSizeToDynamicSMemSize: CUoccupancyB2DSize,
    dynamicSMemSize: usize,
    blockSizeLimit: c_int,
    flags: c_uint,
);

/// Clusters that fit on the device.
#[op(since = 11070)]
#[via(occupancy_clusters)]
fn cuOccupancyMaxActiveClusters(numClusters: *mut c_int, func: CUfunction, config: *const CUlaunchConfig);

/// Largest cluster of a kernel.
#[op(since = 11070)]
#[via(occupancy_clusters)]
fn cuOccupancyMaxPotentialClusterSize(
    clusterSize: *mut c_int,
    func: CUfunction,
    config: *const CUlaunchConfig,
);
