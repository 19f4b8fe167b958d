// Device code that is damaged, foreign or missing: every way of loading it gives an error, and a good image loads afterwards.
//
// A load that takes a pointer cannot know where the code ends. So that sizes which lie within reason only lead to more zeros, every image lies at
// the start of a large block of memory here. Sizes beyond that go through the calls that know a length: files and the linker.
//
// Some of it ends or hangs NVIDIA's driver. `bad_images all` has these cases too, for drivers that are to survive them; so that one can see which
// they are, `bad_images <number>` has a single one.
#include <functional>

#include <fcntl.h>
#include <sys/mman.h>

#include "driver.h"

// Newer than the oldest driver and headers that the samples work with.
using Library = struct LibraryHandle *;
static CUresult (*library_load)(Library *, const void *, void *, void **, unsigned, void *, void **, unsigned);
static CUresult (*library_get_module)(CUmodule *, Library);
static CUresult (*library_unload)(Library);

using Bytes = std::vector<char>;

// An image at the start of a block of zeros, or at its end, with nothing behind it.
class Block {
    static constexpr size_t LENGTH = 8 << 20, GAP = 64 << 10;
    char *start, *image;

  public:
    explicit Block(const Bytes &bytes, bool at_end = false) {
        start = static_cast<char *>(mmap(nullptr, LENGTH + GAP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (start == MAP_FAILED) {
            perror("mmap");
            exit(1);
        }
        munmap(start + LENGTH, GAP);
        // As the format wants it, images are aligned to 8 bytes.
        image = at_end ? start + LENGTH - (bytes.size() + 7) / 8 * 8 : start;
        memcpy(image, bytes.data(), bytes.size());
    }
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;
    ~Block() { munmap(start, LENGTH); }
    void *address() const { return image; }
};

CUresult load_data(const Bytes &bytes, bool at_end = false) {
    Block block(bytes, at_end);
    CUmodule module;
    CUresult result = driver().cuModuleLoadData(&module, block.address());
    if (result == CUDA_SUCCESS)
        CHECK(cuModuleUnload(module));
    return result;
}

// A library may be loaded when something of it is needed: the first error counts.
CUresult load_library(const Bytes &bytes, bool at_end = false) {
    Block block(bytes, at_end);
    Library library;
    CUresult result = library_load(&library, block.address(), nullptr, nullptr, 0, nullptr, nullptr, 0);
    if (result != CUDA_SUCCESS)
        return result;
    CUmodule module;
    result = library_get_module(&module, library);
    CUresult unloaded = library_unload(library);
    return result != CUDA_SUCCESS ? result : unloaded;
}

CUresult load_file(const Bytes &bytes) {
    char path[] = "/tmp/bad_images.XXXXXX";
    int file = mkstemp(path);
    EXPECT(file >= 0 && write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "%s", path);
    close(file);
    CUmodule module;
    CUresult result = driver().cuModuleLoad(&module, path);
    unlink(path);
    if (result == CUDA_SUCCESS)
        CHECK(cuModuleUnload(module));
    return result;
}

CUresult link(const Bytes &bytes, CUjitInputType type) {
    CUlinkState state;
    CHECK(cuLinkCreate_v2(0, nullptr, nullptr, &state));
    Block block(bytes);
    void *image;
    size_t length;
    CUresult result = driver().cuLinkAddData_v2(state, type, block.address(), bytes.size(), "input", 0, nullptr, nullptr);
    if (result == CUDA_SUCCESS)
        result = driver().cuLinkComplete(state, &image, &length);
    CHECK(cuLinkDestroy(state));
    return result;
}

template <typename T> T get(const Bytes &bytes, size_t offset) {
    T value;
    memcpy(&value, bytes.data() + offset, sizeof(value));
    return value;
}

template <typename T> void put(Bytes &bytes, size_t offset, T value) { memcpy(bytes.data() + offset, &value, sizeof(value)); }

// Fields of a container (16 bytes of header) and of its entries.
enum : size_t { CONTAINER_SIZE = 8, HEADER_SIZE = 4, PAYLOAD_SIZE = 8, STORED_SIZE = 16, UNCOMPRESSED_SIZE = 56 };

// The image with a field of all its entries changed.
template <typename T> Bytes change(const Bytes &good, size_t field, const std::function<T(T)> &how) {
    Bytes bytes = good;
    for (size_t entry = 16; entry + 64 <= good.size();) {
        put<T>(bytes, entry + field, how(get<T>(good, entry + field)));
        entry += get<unsigned>(good, entry + HEADER_SIZE) + get<unsigned long long>(good, entry + PAYLOAD_SIZE);
    }
    return bytes;
}

Bytes with_container_size(const Bytes &good, unsigned long long size) {
    Bytes bytes = good;
    put(bytes, CONTAINER_SIZE, size);
    return bytes;
}

Bytes text(const std::string &text) { return Bytes(text.begin(), text.end()); }

Bytes ptx(const std::string &body, const std::string &head = ".version 6.4\n.target sm_70\n") {
    return text(head + ".address_size 64\n" + body + "\n");
}

// Loads an image, runs its kernel.
void load_good(const Bytes &bytes) {
    CUmodule module;
    CUfunction function;
    CUdeviceptr memory;
    unsigned value = 0x5eed, result = 0;
    CHECK(cuModuleLoadData(&module, bytes.data()));
    CHECK(cuModuleGetFunction(&function, module, "set"));
    CHECK(cuMemAlloc_v2(&memory, sizeof(result)));
    void *parameters[] = {&memory, &value};
    CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
    CHECK(cuMemcpyDtoH_v2(&result, memory, sizeof(result)));
    CHECK(cuMemFree_v2(memory));
    CHECK(cuModuleUnload(module));
    EXPECT(result == value, "%#x", result);
}

int main(int argc, char **argv) {
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    EXPECT(handle, "%s", dlerror());
    library_load = reinterpret_cast<decltype(library_load)>(dlsym(handle, "cuLibraryLoadData"));
    library_get_module = reinterpret_cast<decltype(library_get_module)>(dlsym(handle, "cuLibraryGetModule"));
    library_unload = reinterpret_cast<decltype(library_unload)>(dlsym(handle, "cuLibraryUnload"));
    EXPECT(library_load && library_get_module && library_unload, "the driver is older than CUDA 12");

    CUdevice device = use_first_device();
    int major = 0;
    CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    const Bytes good = read_file(beside_program("bad_images.fatbin"));
    // Neither older nor newer devices run machine code of another major version.
    const Bytes foreign = read_file(beside_program(major == 9 ? "bad_images.sm_75.fatbin" : "bad_images.sm_90.fatbin"));
    load_good(good);

    struct Case {
        std::string what;
        std::function<CUresult()> load;
        // Ends or hangs NVIDIA's driver.
        bool deadly;
    };
    std::vector<Case> cases;
    auto add = [&](const std::string &what, std::function<CUresult()> load) {
        cases.push_back({what, std::move(load), false});
    };
    // By every call.
    auto add_all = [&](const std::string &what, const Bytes &bytes, CUjitInputType type) {
        add(what + ", file", [=] { return load_file(bytes); });
        add(what + ", data", [=] { return load_data(bytes); });
        add(what + ", library", [=] { return load_library(bytes); });
        add(what + ", linker", [=] { return link(bytes, type); });
    };
    // By the calls that know where the image ends.
    auto add_bounded = [&](const std::string &what, const Bytes &bytes) {
        add(what + ", file", [=] { return load_file(bytes); });
        add(what + ", linker", [=] { return link(bytes, CU_JIT_INPUT_FATBINARY); });
    };
    auto add_deadly = [&](const std::string &what, const Bytes &bytes) {
        size_t first = cases.size();
        add_bounded(what, bytes);
        add(what + ", data with nothing behind it", [=] { return load_data(bytes, true); });
        add(what + ", library with nothing behind it", [=] { return load_library(bytes, true); });
        for (size_t i = first; i < cases.size(); i++)
            cases[i].deadly = true;
    };
    auto cut = [&](size_t length) { return Bytes(good.begin(), good.begin() + static_cast<long>(length)); };
    const CUjitInputType fatbin = CU_JIT_INPUT_FATBINARY;

    CUmodule module;
    Library library;
    add("NULL, file", [&] { return driver().cuModuleLoad(&module, nullptr); });
    add("NULL, data", [&] { return driver().cuModuleLoadData(&module, nullptr); });
    add("NULL, library", [&] { return library_load(&library, nullptr, nullptr, nullptr, 0, nullptr, nullptr, 0); });
    add("missing file", [&] { return driver().cuModuleLoad(&module, "/nonexistent/image.fatbin"); });
    add("directory", [&] { return driver().cuModuleLoad(&module, "/tmp"); });
    add("empty file", [&] { return load_file({}); });
    add("empty text, data", [&] { return load_data(text("")); });

    add_all("wrong magic", text("this is no device code at all, it is text of another kind\n"), fatbin);
    Bytes magic = good;
    magic[0] ^= 1;
    add_all("container magic", magic, fatbin);
    add_bounded("half a header", cut(8));
    add_deadly("header alone", cut(16));
    add_deadly("half an entry header", cut(48));
    add_deadly("entry headers alone", cut(96));
    add_deadly("half of the file", cut(good.size() / 2));
    add_bounded("all but the last 16 bytes", cut(good.size() - 16));

    const unsigned long long size = get<unsigned long long>(good, CONTAINER_SIZE);
    add_all("container of 0 bytes", with_container_size(good, 0), fatbin);
    add_all("container too small", with_container_size(good, size - 64), fatbin);
    add_deadly("container too large", with_container_size(good, size + 64));
    add_bounded("container of 2^40 bytes", with_container_size(good, 1ull << 40));
    add_bounded("container of 2^64 - 8 bytes", with_container_size(good, ~7ull));
    add_all("entry header of 0 bytes", change<unsigned>(good, HEADER_SIZE, [](unsigned) { return 0; }), fatbin);
    add_all("entry header too small", change<unsigned>(good, HEADER_SIZE, [](unsigned n) { return n - 32; }), fatbin);
    add_deadly("entry header of 2^31 bytes", change<unsigned>(good, HEADER_SIZE, [](unsigned) { return 1u << 31; }));
    using Long = unsigned long long;
    add_all("payload of 0 bytes", change<Long>(good, PAYLOAD_SIZE, [](Long) { return 0; }), fatbin);
    add_all("payload too small", change<Long>(good, PAYLOAD_SIZE, [](Long n) { return n - 16; }), fatbin);
    add_bounded("payload too large", change<Long>(good, PAYLOAD_SIZE, [](Long n) { return n + (1 << 20); }));
    add_deadly("payload of 2^64 - 8 bytes", change<Long>(good, PAYLOAD_SIZE, [](Long) { return ~7ull; }));
    add_bounded("stored size of 2^31 bytes", change<unsigned>(good, STORED_SIZE, [](unsigned) { return 1u << 31; }));
    add_all("uncompressed size too small", change<Long>(good, UNCOMPRESSED_SIZE, [](Long n) { return n - 1; }), fatbin);
    add_all("uncompressed size too large", change<Long>(good, UNCOMPRESSED_SIZE, [](Long n) { return n + 64; }), fatbin);
    add_bounded("uncompressed size of 2^60 bytes", change<Long>(good, UNCOMPRESSED_SIZE, [](Long) { return 1ull << 60; }));

    add_all("machine code for another architecture", foreign, fatbin);
    const std::string kernel = ".visible .entry set(.param .u64 where, .param .u32 value) { ret; }";
    add_all("PTX of a newer version", ptx(kernel, ".version 99.0\n.target sm_70\n"), CU_JIT_INPUT_PTX);
    add_all("PTX for a newer target", ptx(kernel, ".version 6.4\n.target sm_999\n"), CU_JIT_INPUT_PTX);
    add_all("PTX with an unknown instruction", ptx(".visible .entry set() { .reg .b32 %r<2>; frobnicate.u32 %r1; ret; }"),
            CU_JIT_INPUT_PTX);
    add_all("PTX with a syntax error", ptx(".visible .entry set( { ret; }"), CU_JIT_INPUT_PTX);
    add_all("PTX that ends early", ptx(".visible .entry set() { ret;"), CU_JIT_INPUT_PTX);
    add_all("PTX with an undefined register", ptx(".visible .entry set() { mov.u32 %r1, 0; ret; }"), CU_JIT_INPUT_PTX);
    add_all("PTX without a head", text(kernel + "\n"), CU_JIT_INPUT_PTX);

    const std::string which = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < cases.size(); i++) {
        if (which.empty() ? cases[i].deadly : which != "all" && which != std::to_string(i))
            continue;
        printf("%s: ", cases[i].what.c_str());
        fflush(stdout);
        printf("%s\n", error_name(cases[i].load()));
        fflush(stdout);
    }
    load_good(good);
    return pass();
}
