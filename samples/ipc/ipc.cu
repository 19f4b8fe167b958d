// Memory and events of another program: IPC handles of allocations and events, and a pool shared by a file descriptor.
#include <string>
#include <vector>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

__global__ void add(int *values, int count, int amount) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        values[i] += amount;
}

const int count = 100000;

// What goes from one program to the other.
struct Message {
    cudaIpcMemHandle_t memory;
    cudaIpcEventHandle_t event;
    cudaMemPoolPtrExportData pointer;
};

void send_message(int socket, const Message &message, int descriptor) {
    iovec part = {const_cast<Message *>(&message), sizeof(message)};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = space;
    header.msg_controllen = sizeof(space);
    cmsghdr *control = CMSG_FIRSTHDR(&header);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(control), &descriptor, sizeof(int));
    EXPECT(sendmsg(socket, &header, 0) == sizeof(message), "sendmsg");
}

int receive_message(int socket, Message *message) {
    iovec part = {message, sizeof(*message)};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = space;
    header.msg_controllen = sizeof(space);
    EXPECT(recvmsg(socket, &header, MSG_WAITALL) == sizeof(*message), "recvmsg");
    int descriptor = -1;
    memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof(int));
    return descriptor;
}

std::vector<int> values_of(const int *pointer) {
    std::vector<int> values(count);
    CHECK(cudaMemcpy(values.data(), pointer, count * sizeof(int), cudaMemcpyDeviceToHost));
    return values;
}

int child(int socket) {
    Message message;
    int descriptor = receive_message(socket, &message);
    int *memory, *shared;
    cudaEvent_t event;
    CHECK(cudaIpcOpenMemHandle(reinterpret_cast<void **>(&memory), message.memory, cudaIpcMemLazyEnablePeerAccess));
    CHECK(cudaIpcOpenEventHandle(&event, message.event));
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaStreamWaitEvent(stream, event, 0));
    add<<<(count + 255) / 256, 256, 0, stream>>>(memory, count, 1000);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream));
    std::vector<int> values = values_of(memory);
    for (int i = 0; i < count; i++)
        EXPECT(values[i] == i + 1000, "%d: %d", i, values[i]);

    cudaMemPool_t pool;
    CHECK(cudaMemPoolImportFromShareableHandle(&pool, reinterpret_cast<void *>(static_cast<size_t>(descriptor)),
                                               cudaMemHandleTypePosixFileDescriptor, 0));
    close(descriptor);
    cudaMemAccessDesc access = {};
    access.location.type = cudaMemLocationTypeDevice;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    CHECK(cudaMemPoolSetAccess(pool, &access, 1));
    CHECK(cudaMemPoolImportPointer(reinterpret_cast<void **>(&shared), pool, &message.pointer));
    add<<<(count + 255) / 256, 256, 0, stream>>>(shared, count, 7);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaFreeAsync(shared, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolDestroy(pool));

    CHECK(cudaEventDestroy(event));
    CHECK(cudaIpcCloseMemHandle(memory));
    CHECK(cudaStreamDestroy(stream));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return child(atoi(argv[1]));
    // The other program is started before this one uses CUDA.
    int ends[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        std::string number = std::to_string(ends[1]);
        execl("/proc/self/exe", "ipc", number.c_str(), nullptr);
        _exit(127);
    }
    close(ends[1]);

    std::vector<int> source(count);
    for (int i = 0; i < count; i++)
        source[i] = i;
    Message message = {};
    int *memory, *shared;
    CHECK(cudaMalloc(&memory, count * sizeof(int)));
    CHECK(cudaIpcGetMemHandle(&message.memory, memory));
    cudaEvent_t event;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess));
    CHECK(cudaIpcGetEventHandle(&message.event, event));
    CHECK(cudaMemcpyAsync(memory, source.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    CHECK(cudaEventRecord(event));

    cudaMemPoolProps props = {};
    props.allocType = cudaMemAllocationTypePinned;
    props.handleTypes = cudaMemHandleTypePosixFileDescriptor;
    props.location.type = cudaMemLocationTypeDevice;
    cudaMemPool_t pool;
    CHECK(cudaMemPoolCreate(&pool, &props));
    int descriptor = -1;
    CHECK(cudaMemPoolExportToShareableHandle(&descriptor, pool, cudaMemHandleTypePosixFileDescriptor, 0));
    CHECK(cudaMallocFromPoolAsync(reinterpret_cast<void **>(&shared), count * sizeof(int), pool, 0));
    CHECK(cudaMemcpy(shared, source.data(), count * sizeof(int), cudaMemcpyHostToDevice));
    CHECK(cudaMemPoolExportPointer(&message.pointer, shared));
    send_message(ends[0], message, descriptor);
    close(descriptor);

    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other program: status %d", status);
    std::vector<int> values = values_of(memory);
    for (int i = 0; i < count; i++)
        EXPECT(values[i] == i + 1000, "%d: %d", i, values[i]);
    puts("ipc: memory and an event of another program: equal");
    values = values_of(shared);
    for (int i = 0; i < count; i++)
        EXPECT(values[i] == i + 7, "%d: %d", i, values[i]);
    puts("ipc: a pool of another program: equal");
    CHECK(cudaFreeAsync(shared, 0));
    CHECK(cudaStreamSynchronize(0));
    CHECK(cudaMemPoolDestroy(pool));
    CHECK(cudaEventDestroy(event));
    CHECK(cudaFree(memory));
    return pass();
}
