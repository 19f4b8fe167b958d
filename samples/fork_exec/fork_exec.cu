// Processes: forks before CUDA is used, programs started while it is in use, children that leave it alone.
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "child.h"

__global__ void powers(unsigned *out, unsigned base) {
    unsigned x = 1;
    for (unsigned i = 0; i <= threadIdx.x; i++)
        x *= base;
    out[threadIdx.x] = x;
}

bool use_cuda(unsigned base) {
    unsigned *device, result[64];
    CHECK(cudaMalloc(&device, sizeof(result)));
    powers<<<1, 64>>>(device, base);
    CHECK_KERNEL();
    CHECK(cudaMemcpy(result, device, sizeof(result), cudaMemcpyDeviceToHost));
    CHECK(cudaFree(device));
    unsigned x = 1;
    for (unsigned value : result) {
        x *= base;
        if (value != x)
            return false;
    }
    return true;
}

int wait_for(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int main(int argc, char **argv) {
    if (argc > 1)
        return use_cuda(static_cast<unsigned>(atoi(argv[1]))) ? 40 : 41;

    // Three processes from one, before any of them has touched the device.
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        fflush(stdout);
        children[i] = fork();
        EXPECT(children[i] >= 0, "fork failed");
        if (children[i] == 0)
            exit(use_cuda(3 + 2 * i) ? 20 + i : 1);
    }
    EXPECT(use_cuda(7), "wrong result");
    int first = wait_for(children[0]), second = wait_for(children[1]);
    printf("fork_exec: forked before use: %d, %d\n", first, second);
    EXPECT(first == 20 && second == 21, "exit codes");

    // While the device is in use: memory with contents that must survive the children.
    unsigned *device, value = 0;
    CHECK(cudaMalloc(&device, 1024));
    CHECK(cudaMemset(device, 0x21, 1024));
    for (const char *argument : {"5", "9", "11"}) {
        Child child = run_self(argument);
        printf("fork_exec: started with %s: %d\n", argument, child.exit_code);
        EXPECT(child.exit_code == 40, "%s", child.err.c_str());
    }
    fflush(stdout);
    pid_t idle = fork();
    if (idle == 0) {
        // A copy of the parent's memory is all that this child uses.
        _exit(value == 0 ? 30 : 31);
    }
    printf("fork_exec: child without CUDA: %d\n", wait_for(idle));
    printf("fork_exec: shell: %d\n", WEXITSTATUS(system("exit 12")));
    CHECK(cudaMemcpy(&value, device + 100, sizeof(value), cudaMemcpyDeviceToHost));
    EXPECT(value == 0x21212121u, "%#x", value);
    EXPECT(use_cuda(13), "wrong result");
    printf("fork_exec: the parent's memory is as it was\n");
    CHECK(cudaFree(device));
    return pass();
}
