#include <cuda/ptx>
#include <cuda/atomic>
#include <cuda_fp8.h>
#include <cuda_bf16.h>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace ptx = cuda::ptx; namespace cg = cooperative_groups;
struct alignas(64) Map { char b[128]; };
extern "C" __global__ void exotic(const __grid_constant__ Map map, int *g, uint64_t *out, __nv_bfloat162 *bf, __nv_fp8_e4m3 *f8) {
  __shared__ alignas(128) int s[1024]; __shared__ uint64_t bar;
  ptx::mbarrier_init(&bar, 1); ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
  ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, s, g, 1024, &bar);
  const int32_t c[2] = {1, 2}; ptx::cp_async_bulk_tensor(ptx::space_cluster, ptx::space_global, s, &map, c, &bar);
  out[0] = ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &bar, 16);
  while (!ptx::mbarrier_try_wait(&bar, out[0], 100)) ;
  ptx::cp_async_bulk_commit_group(); ptx::cp_async_bulk_wait_group(ptx::n32_t<0>());
  ptx::cp_async_bulk(ptx::space_global, ptx::space_shared, g, s, 512);
  ptx::cp_reduce_async_bulk(ptx::space_global, ptx::space_shared, ptx::op_add, g, s, 64);
  ptx::fence_proxy_async(); ptx::barrier_cluster_arrive(); ptx::barrier_cluster_wait();
  ptx::st_async(g, 1, &bar); ptx::red_async(ptx::op_add, s, 3, &bar);
  out[1] = ptx::get_sreg_globaltimer() + ptx::get_sreg_smid() + ptx::get_sreg_lanemask_gt() + ptx::get_sreg_cluster_ctaid_x() + ptx::get_sreg_dynamic_smem_size();
  cuda::atomic_ref<int, cuda::thread_scope_system> r(*g); r.fetch_add(2, cuda::memory_order_acq_rel); r.compare_exchange_strong(*g, 5);
  cuda::atomic_ref<__int128, cuda::thread_scope_device> q(*(__int128 *)out); q.exchange(5);
  bf[0] = __hfma2(bf[1], bf[2], bf[3]); bf[1] = __hmax2(bf[1], bf[0]); f8[0] = __nv_fp8_e4m3(3.5f * (float)f8[1]);
  auto w = cg::tiled_partition<32>(cg::this_thread_block()); out[2] = cg::reduce(w, (int)threadIdx.x, cg::plus<int>()); 
  unsigned d[4], a[4], b[2]; float f[4] = {};
  for (int i = 0; i < 4; i++) a[i] = s[i]; b[0] = s[5]; b[1] = s[6];
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" : "+f"(f[0]), "+f"(f[1]), "+f"(f[2]), "+f"(f[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"((unsigned)__cvta_generic_to_shared(s)));
  asm volatile("ld.global.L1::no_allocate.L2::128B.v2.u32 {%0,%1}, [%2];" : "=r"(d[0]), "=r"(d[1]) : "l"(g));
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; @p mov.u32 %0, 1; vabsdiff4.u32.u32.u32.add %0, %1, %2, %0; }" : "+r"(d[2]) : "r"(d[0]), "r"(d[1]));
  asm volatile("{ .reg .b64 pol; createpolicy.fractional.L2::evict_first.b64 pol, 1.0; ld.global.L2::cache_hint.f32 %0, [%1], pol; prefetch.global.L2 [%1+128]; }" : "=f"(f[1]) : "l"(g));
  asm volatile("{ .reg .v2 .f32 v; mov.v2.f32 v, {%0, %0}; add.f32 %0, v.x, v.y; }" : "+f"(f[2]));
  out[3] = d[0] + d[1] + d[2] + d[3] + f[0] + f[1] + f[2] + f[3] + __dp4a(d[0], d[1], d[2]) + __vabsdiffu4(d[0], d[1]) + __byte_perm(d[0], d[1], 0x1234) + __match_any_sync(~0u, d[0]) + __reduce_max_sync(~0u, d[1]) + __funnelshift_l(d[0], d[1], 3);
}
__global__ void child(int *x) { x[0] = 5; }
