// The mathematical libraries of CUDA, called from C: cuBLAS, cuDNN, cuFFT, cuRAND, cuSOLVER, cuSPARSE.
//
// No headers and no linking: the libraries are opened from the folders in CUDA_LIBRARY_DIRS (separated by colons), such as those
// that Python packages bring, and the prototypes below state what is used of them.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <numeric>
#include <random>

#include <dirent.h>
#include <dlfcn.h>

#include "sections.h"

namespace {

struct Status {
    const char *what;
    int code;
};

std::string describe(const Status &status) { return text("failed: %s: status %d", status.what, status.code); }

// The library whose file's name starts with `stem`, with everything that it needs from the same folders opened before it.
void *open_library(const std::string &stem) {
    const char *folders = getenv("CUDA_LIBRARY_DIRS");
    std::string rest = folders ? folders : "";
    while (!rest.empty()) {
        const size_t colon = rest.find(':');
        const std::string folder = rest.substr(0, colon);
        rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
        DIR *entries = opendir(folder.c_str());
        if (!entries)
            continue;
        std::string file;
        while (const dirent *entry = readdir(entries))
            if (strncmp(entry->d_name, (stem + ".so").c_str(), stem.size() + 3) == 0)
                file = folder + "/" + entry->d_name;
        closedir(entries);
        if (file.empty())
            continue;
        if (void *library = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL))
            return library;
        fprintf(stderr, "%s\n", dlerror());
    }
    return nullptr;
}

void *function(void *library, const char *name) {
    void *found = dlsym(library, name);
    ENSURE(found, "no function %s", name);
    return found;
}

void *need(const char *stem) {
    void *library = open_library(stem);
    if (!library)
        throw Skip{std::string("no ") + stem + " in CUDA_LIBRARY_DIRS"};
    return library;
}

// A function of the library `library` in scope, declared with its parameters; every status but 0 ends the section.
#define CALL(name, types, ...)                                                                                         \
    do {                                                                                                               \
        const int status_ = reinterpret_cast<int(*) types>(function(library, #name))(__VA_ARGS__);                     \
        if (status_ != 0)                                                                                              \
            throw Status{#name, status_};                                                                              \
    } while (0)

void *runtime() {
    static void *library = need("libcudart");
    return library;
}

void synchronize() {
    void *library = runtime();
    CALL(cudaDeviceSynchronize, (void));
}

// Device memory that goes with the process.
template <class T> T *device(size_t count) {
    void *library = runtime();
    void *memory = nullptr;
    CALL(cudaMalloc, (void **, size_t), &memory, count * sizeof(T));
    CALL(cudaMemset, (void *, int, size_t), memory, 0, count * sizeof(T));
    synchronize();
    return static_cast<T *>(memory);
}

template <class T> T *device(const std::vector<T> &values) {
    T *memory = device<T>(values.size());
    void *library = runtime();
    CALL(cudaMemcpy, (void *, const void *, size_t, int), memory, values.data(), values.size() * sizeof(T), 1);
    // The copy may still be on its way, and streams that do not wait for it use the memory.
    synchronize();
    return memory;
}

template <class T> std::vector<T> host(const T *memory, size_t count) {
    synchronize();
    std::vector<T> values(count);
    void *library = runtime();
    CALL(cudaMemcpy, (void *, const void *, size_t, int), values.data(), memory, count * sizeof(T), 2);
    return values;
}

template <class T> std::vector<T> random_values(size_t count, unsigned seed = 1) {
    std::mt19937 generator(seed);
    std::vector<T> values(count);
    for (T &value : values)
        value = static_cast<T>(generator() / 2147483648.0 - 1.0);
    return values;
}

// Column-major product of double precision, to compare with.
template <class T> std::vector<double> product(const std::vector<T> &a, const std::vector<T> &b, int m, int n, int k) {
    std::vector<double> c(size_t(m) * n);
    for (int j = 0; j < n; j++)
        for (int l = 0; l < k; l++)
            for (int i = 0; i < m; i++)
                c[i + size_t(j) * m] += double(a[i + size_t(l) * m]) * double(b[l + size_t(j) * k]);
    return c;
}

template <class T, class U> void close(const char *name, const std::vector<T> &actual, const std::vector<U> &expected, double bound) {
    double worst = 0, scale = 1e-300, sum = 0;
    ENSURE(actual.size() >= expected.size(), "%s: %zu values, expected %zu", name, actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); i++) {
        worst = std::max(worst, double(std::abs(actual[i] - T(expected[i]))));
        scale = std::max(scale, double(std::abs(expected[i])));
        sum += double(std::abs(actual[i]));
    }
    ENSURE(worst <= bound * scale, "%s is off by %.3g of the largest value", name, worst / scale);
    printf("%s: %.9g\n", name, sum);
}

enum { N = 0, T = 1, REAL_32 = 0, REAL_64 = 1, REAL_16 = 2, COMPUTE_32F = 68 };

} // namespace

SECTION(cublas) {
    runtime();
    void *library = need("libcublas");
    void *handle = nullptr, *stream = nullptr;
    CALL(cublasCreate_v2, (void **), &handle);
    {
        void *library = runtime();
        CALL(cudaStreamCreateWithFlags, (void **, unsigned), &stream, 1);
    }
    CALL(cublasSetStream_v2, (void *, void *), handle, stream);
    int version = 0;
    CALL(cublasGetVersion_v2, (void *, int *), handle, &version);
    printf("version %d\n", version);

    const int m = 300, n = 170, k = 256;
    const auto a = random_values<float>(m * k), b = random_values<float>(k * n, 2);
    float *c = device<float>(m * n);
    float one = 1, zero = 0;
    CALL(cublasSgemm_v2,
         (void *, int, int, int, int, int, const float *, const float *, int, const float *, int, const float *, float *, int), handle, N,
         N, m, n, k, &one, device(a), m, device(b), k, &zero, c, m);
    close("sgemm", host(c, m * n), product(a, b, m, n, k), 1e-5);

    const auto wide_a = random_values<double>(m * k), wide_b = random_values<double>(k * n, 2);
    double *wide_c = device<double>(m * n);
    double wide_one = 1, wide_zero = 0;
    CALL(cublasDgemm_v2,
         (void *, int, int, int, int, int, const double *, const double *, int, const double *, int, const double *, double *, int),
         handle, N, N, m, n, k, &wide_one, device(wide_a), m, device(wide_b), k, &wide_zero, wide_c, m);
    close("dgemm", host(wide_c, m * n), product(wide_a, wide_b, m, n, k), 1e-13);

    // Half precision in, single out: small integers are exact.
    std::vector<uint16_t> halves(64 * 64);
    std::vector<float> same(64 * 64);
    for (int i = 0; i < 64 * 64; i++) {
        const uint16_t bits[] = {0x0000, 0x3c00, 0x4000, 0x4200, 0xbc00};
        const float values[] = {0, 1, 2, 3, -1};
        halves[i] = bits[i % 5];
        same[i] = values[i % 5];
    }
    CALL(cublasGemmEx,
         (void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int, int,
          int, int),
         handle, N, N, 64, 64, 64, &one, device(halves), REAL_16, 64, device(halves), REAL_16, 64, &zero, c, REAL_32, 64, COMPUTE_32F, -1);
    close("gemm of halves", host(c, 64 * 64), product(same, same, 64, 64, 64), 0);

    const auto many_a = random_values<float>(50 * 32 * 32), many_b = random_values<float>(50 * 32 * 32, 2);
    float *many_c = device<float>(50 * 32 * 32);
    CALL(cublasSgemmStridedBatched,
         (void *, int, int, int, int, int, const float *, const float *, int, long long, const float *, int, long long, const float *,
          float *, int, long long, int),
         handle, N, N, 32, 32, 32, &one, device(many_a), 32, 1024, device(many_b), 32, 1024, &zero, many_c, 32, 1024, 50);
    std::vector<double> expected;
    for (int i = 0; i < 50; i++) {
        const auto from = i * 1024, to = from + 1024;
        const auto part = product(std::vector<float>(many_a.begin() + from, many_a.begin() + to),
                                  std::vector<float>(many_b.begin() + from, many_b.begin() + to), 32, 32, 32);
        expected.insert(expected.end(), part.begin(), part.end());
    }
    close("batched", host(many_c, 50 * 1024), expected, 1e-5);

    // Scalar results on the host, then on the device.
    float norm = 0;
    int largest = 0;
    float *x = device(a);
    CALL(cublasSnrm2_v2, (void *, int, const float *, int, float *), handle, m * k, x, 1, &norm);
    CALL(cublasIsamax_v2, (void *, int, const float *, int, int *), handle, m * k, x, 1, &largest);
    const double exact = std::sqrt(std::inner_product(a.begin(), a.end(), a.begin(), 0.0));
    ENSURE(std::abs(norm - exact) < 1e-4 * exact, "norm %g, expected %g", norm, exact);
    printf("norm %.6g, largest at %d\n", norm, largest);
    CALL(cublasSetPointerMode_v2, (void *, int), handle, 1);
    float *dot = device<float>(1);
    CALL(cublasSdot_v2, (void *, int, const float *, int, const float *, int, float *), handle, m * k, x, 1, x, 1, dot);
    printf("dot %.5g\n", host(dot, 1)[0]);
    CALL(cublasDestroy_v2, (void *), handle);
}

SECTION(cudnn) {
    runtime();
    for (const char *stem : {"libnvrtc", "libcublasLt", "libcublas"})
        open_library(stem);
    void *library = need("libcudnn");
    void *handle, *x, *w, *y, *convolution, *activation;
    CALL(cudnnCreate, (void **), &handle);
    CALL(cudnnCreateTensorDescriptor, (void **), &x);
    CALL(cudnnCreateTensorDescriptor, (void **), &y);
    CALL(cudnnCreateFilterDescriptor, (void **), &w);
    CALL(cudnnCreateConvolutionDescriptor, (void **), &convolution);
    CALL(cudnnCreateActivationDescriptor, (void **), &activation);
    const int count = 2, in = 3, out = 8, height = 17, width = 19;
    CALL(cudnnSetTensor4dDescriptor, (void *, int, int, int, int, int, int), x, 0, 0, count, in, height, width);
    CALL(cudnnSetTensor4dDescriptor, (void *, int, int, int, int, int, int), y, 0, 0, count, out, height, width);
    CALL(cudnnSetFilter4dDescriptor, (void *, int, int, int, int, int, int), w, 0, 0, out, in, 3, 3);
    CALL(cudnnSetConvolution2dDescriptor, (void *, int, int, int, int, int, int, int, int), convolution, 1, 1, 1, 1, 1, 1, 1, 0);
    CALL(cudnnSetActivationDescriptor, (void *, int, int, double), activation, 1, 0, 0.0);

    const auto image = random_values<float>(count * in * height * width), filter = random_values<float>(out * in * 9, 2);
    std::vector<double> expected(count * out * height * width);
    for (int b = 0; b < count; b++)
        for (int o = 0; o < out; o++)
            for (int r = 0; r < height; r++)
                for (int c = 0; c < width; c++) {
                    double &sum = expected[((b * out + o) * height + r) * width + c];
                    for (int i = 0; i < in; i++)
                        for (int s = 0; s < 9; s++) {
                            const int row = r + s / 3 - 1, column = c + s % 3 - 1;
                            if (row >= 0 && row < height && column >= 0 && column < width)
                                sum += double(image[((b * in + i) * height + row) * width + column]) * filter[(o * in + i) * 9 + s];
                        }
                }
    float one = 1, zero = 0;
    float *image_there = device(image), *filter_there = device(filter), *result = device<float>(expected.size());
    for (int algorithm : {0, 1}) {
        size_t bytes = 0;
        CALL(cudnnGetConvolutionForwardWorkspaceSize, (void *, void *, void *, void *, void *, int, size_t *), handle, x, w, convolution,
             y, algorithm, &bytes);
        char *workspace = device<char>(bytes + 16);
        CALL(cudnnConvolutionForward,
             (void *, const void *, void *, const void *, void *, const void *, void *, int, void *, size_t, const void *, void *, void *),
             handle, &one, x, image_there, w, filter_there, convolution, algorithm, workspace, bytes, &zero, y, result);
        close(algorithm == 0 ? "implicit gemm" : "precomputed gemm", host(result, expected.size()), expected, 1e-5);
    }
    CALL(cudnnActivationForward, (void *, void *, const void *, void *, const void *, const void *, void *, void *), handle, activation,
         &one, y, result, &zero, y, result);
    std::vector<double> positive = expected;
    for (double &value : positive)
        value = std::max(value, 0.0);
    close("relu", host(result, expected.size()), positive, 1e-5);
    CALL(cudnnSoftmaxForward, (void *, int, int, const void *, void *, const void *, const void *, void *, void *), handle, 1, 0, &one, y,
         result, &zero, y, result);
    const auto softmax = host(result, expected.size());
    ENSURE(std::abs(std::accumulate(softmax.begin(), softmax.end(), 0.0) - count) < 1e-4, "softmax does not add up to 1");
    printf("softmax %.6g\n", *std::max_element(softmax.begin(), softmax.end()));
    CALL(cudnnDestroy, (void *), handle);
}

SECTION(cufft) {
    runtime();
    void *library = need("libcufft");
    typedef std::complex<float> Complex;
    typedef std::complex<double> Wide;
    const int length = 1000, batch = 8;
    std::vector<Complex> signal(length * batch);
    const auto parts = random_values<float>(2 * length * batch);
    for (int i = 0; i < length * batch; i++)
        signal[i] = Complex(parts[2 * i], parts[2 * i + 1]);
    int plan = 0;
    CALL(cufftPlan1d, (int *, int, int, int), &plan, length, 0x29, batch);
    Complex *there = device(signal), *spectrum = device<Complex>(length * batch);
    CALL(cufftExecC2C, (int, Complex *, Complex *, int), plan, there, spectrum, -1);
    std::vector<Wide> expected(length);
    for (int f = 0; f < length; f++)
        for (int i = 0; i < length; i++)
            expected[f] += Wide(signal[i]) * std::polar(1.0, -2 * M_PI * (long(f) * i % length) / length);
    const auto transformed = host(spectrum, length * batch);
    double worst = 0;
    for (int f = 0; f < length; f++)
        worst = std::max(worst, std::abs(Wide(transformed[f]) - expected[f]));
    ENSURE(worst < 1e-3, "a transform of length %d is off by %g", length, worst);
    CALL(cufftExecC2C, (int, Complex *, Complex *, int), plan, spectrum, there, 1);
    const auto back = host(there, length * batch);
    for (int i = 0; i < length * batch; i++)
        ENSURE(std::abs(back[i] / float(length) - signal[i]) < 1e-4f, "value %d after both ways", i);
    printf("first %.5g, last %.5g\n", std::abs(transformed[0]), std::abs(transformed[length - 1]));
    CALL(cufftDestroy, (int), plan);

    const int rows = 60, columns = 128;
    const auto image = random_values<double>(rows * columns);
    CALL(cufftPlan2d, (int *, int, int, int), &plan, rows, columns, 0x6a);
    Wide *planes = device<Wide>(rows * (columns / 2 + 1));
    double *source = device(image);
    CALL(cufftExecD2Z, (int, double *, Wide *), plan, source, planes);
    const auto two = host(planes, 1);
    const double sum = std::accumulate(image.begin(), image.end(), 0.0);
    ENSURE(std::abs(two[0].real() - sum) < 1e-9, "sum %g, expected %g", two[0].real(), sum);
    printf("two dimensions %.9g\n", two[0].real());
}

SECTION(curand) {
    runtime();
    void *library = need("libcurand");
    const size_t count = 100000;
    float *values = device<float>(count);
    unsigned *words = device<unsigned>(count);
    // Pseudo-random ones by their type number; 201 is a quasi-random one.
    for (int type : {101, 121, 141, 142, 161, 201}) {
        void *generator = nullptr;
        CALL(curandCreateGenerator, (void **, int), &generator, type);
        if (type < 200)
            CALL(curandSetPseudoRandomGeneratorSeed, (void *, unsigned long long), generator, 1234);
        CALL(curandGenerateUniform, (void *, float *, size_t), generator, values, count);
        const auto uniform = host(values, count);
        const double mean = std::accumulate(uniform.begin(), uniform.end(), 0.0) / count;
        ENSURE(std::abs(mean - 0.5) < 0.01, "generator %d: mean %g", type, mean);
        CALL(curandGenerate, (void *, unsigned *, size_t), generator, words, count);
        const auto bits = host(words, count);
        unsigned all = 0;
        for (unsigned word : bits)
            all = all * 31 + word;
        // Exactly the same in every run.
        printf("generator %d: %.8g, %u\n", type, mean, all);
        if (type < 200) {
            CALL(curandGenerateNormal, (void *, float *, size_t, float, float), generator, values, count, 1.0f, 2.0f);
            const auto normal = host(values, count);
            printf("normal: %.6g\n", std::accumulate(normal.begin(), normal.end(), 0.0) / count);
        }
        CALL(curandDestroyGenerator, (void *), generator);
    }
}

SECTION(cusolver) {
    runtime();
    for (const char *stem : {"libnvJitLink", "libcublasLt", "libcublas", "libcusparse"})
        open_library(stem);
    void *library = need("libcusolver");
    void *handle = nullptr;
    CALL(cusolverDnCreate, (void **), &handle);
    const int n = 150;
    auto a = random_values<double>(n * n);
    auto symmetric = a;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            symmetric[i + j * n] = (a[i + j * n] + a[j + i * n]) / 2 + (i == j ? n : 0);
    const auto x = random_values<double>(n, 3);
    const auto b = product(symmetric, x, n, 1, n);
    int size = 0, *info = device<int>(1), *pivots = device<int>(n);

    double *matrix = device(symmetric), *right = device(b);
    CALL(cusolverDnDgetrf_bufferSize, (void *, int, int, double *, int, int *), handle, n, n, matrix, n, &size);
    double *work = device<double>(size);
    CALL(cusolverDnDgetrf, (void *, int, int, double *, int, double *, int *, int *), handle, n, n, matrix, n, work, pivots, info);
    CALL(cusolverDnDgetrs, (void *, int, int, int, const double *, int, const int *, double *, int, int *), handle, N, n, 1, matrix, n,
         pivots, right, n, info);
    close("LU", host(right, n), x, 1e-11);
    printf("info %d\n", host(info, 1)[0]);

    matrix = device(symmetric);
    CALL(cusolverDnDpotrf_bufferSize, (void *, int, int, double *, int, int *), handle, 0, n, matrix, n, &size);
    work = device<double>(size);
    CALL(cusolverDnDpotrf, (void *, int, int, double *, int, double *, int, int *), handle, 0, n, matrix, n, work, size, info);
    const auto lower = host(matrix, n * n);
    double determinant = 0;
    for (int i = 0; i < n; i++)
        determinant += 2 * std::log(lower[i + i * n]);
    printf("Cholesky %.9g, info %d\n", determinant, host(info, 1)[0]);

    matrix = device(symmetric);
    double *values = device<double>(n);
    CALL(cusolverDnDsyevd_bufferSize, (void *, int, int, int, const double *, int, const double *, int *), handle, 1, 0, n, matrix, n,
         values, &size);
    work = device<double>(size);
    CALL(cusolverDnDsyevd, (void *, int, int, int, double *, int, double *, double *, int, int *), handle, 1, 0, n, matrix, n, values,
         work, size, info);
    const auto eigen = host(values, n);
    double trace = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        trace += symmetric[i + i * n];
        sum += eigen[i];
    }
    ENSURE(std::abs(trace - sum) < 1e-9 * trace, "eigenvalues add up to %g, the trace is %g", sum, trace);
    printf("eigenvalues %.9g to %.9g\n", eigen.front(), eigen.back());

    matrix = device(a);
    double *singular = device<double>(n), *u = device<double>(n * n), *v = device<double>(n * n);
    CALL(cusolverDnDgesvd_bufferSize, (void *, int, int, int *), handle, n, n, &size);
    work = device<double>(size);
    CALL(cusolverDnDgesvd,
         (void *, signed char, signed char, int, int, double *, int, double *, double *, int, double *, int, double *, int, double *,
          int *),
         handle, 'A', 'A', n, n, matrix, n, singular, u, n, v, n, work, size, nullptr, info);
    const auto largest = host(singular, n);
    double squares = 0, frobenius = 0;
    for (double value : largest)
        squares += value * value;
    for (double value : a)
        frobenius += value * value;
    ENSURE(std::abs(squares - frobenius) < 1e-9 * frobenius, "singular values: %g, expected %g", squares, frobenius);
    printf("singular values %.9g to %.6g\n", largest.front(), largest.back());
    CALL(cusolverDnDestroy, (void *), handle);
}

SECTION(cusparse) {
    runtime();
    open_library("libnvJitLink");
    void *library = need("libcusparse");
    void *handle = nullptr;
    CALL(cusparseCreate, (void **), &handle);
    const int rows = 500, columns = 300, wide = 4;
    std::vector<int> starts{0}, places;
    std::vector<float> values;
    std::vector<double> dense(size_t(rows) * columns);
    std::mt19937 generator(4);
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < columns; c++)
            if (generator() % 20 == 0) {
                places.push_back(c);
                values.push_back(float(generator() % 100) / 10);
                dense[r + size_t(c) * rows] = values.back();
            }
        starts.push_back(int(places.size()));
    }
    const auto b = random_values<float>(columns * wide);
    const std::vector<double> b_wide(b.begin(), b.end());
    const auto expected = product(dense, b_wide, rows, wide, columns);
    void *matrix, *vector, *result, *left, *right;
    float *b_there = device(b), *out = device<float>(rows * wide);
    CALL(cusparseCreateCsr, (void **, int64_t, int64_t, int64_t, void *, void *, void *, int, int, int, int), &matrix, rows, columns,
         int64_t(places.size()), device(starts), device(places), device(values), 2, 2, 0, REAL_32);
    CALL(cusparseCreateDnVec, (void **, int64_t, void *, int), &vector, columns, b_there, REAL_32);
    CALL(cusparseCreateDnVec, (void **, int64_t, void *, int), &result, rows, out, REAL_32);
    CALL(cusparseCreateDnMat, (void **, int64_t, int64_t, int64_t, void *, int, int), &right, columns, wide, columns, b_there, REAL_32, 1);
    CALL(cusparseCreateDnMat, (void **, int64_t, int64_t, int64_t, void *, int, int), &left, rows, wide, rows, out, REAL_32, 1);
    float one = 1, zero = 0;
    size_t bytes = 0;
    CALL(cusparseSpMV_bufferSize, (void *, int, const void *, void *, void *, const void *, void *, int, int, size_t *), handle, N, &one,
         matrix, vector, &zero, result, REAL_32, 0, &bytes);
    char *buffer = device<char>(bytes + 16);
    CALL(cusparseSpMV, (void *, int, const void *, void *, void *, const void *, void *, int, int, void *), handle, N, &one, matrix,
         vector, &zero, result, REAL_32, 0, buffer);
    close("matrix and vector", host(out, rows), std::vector<double>(expected.begin(), expected.begin() + rows), 1e-5);
    CALL(cusparseSpMM_bufferSize, (void *, int, int, const void *, void *, void *, const void *, void *, int, int, size_t *), handle, N, N,
         &one, matrix, right, &zero, left, REAL_32, 0, &bytes);
    buffer = device<char>(bytes + 16);
    CALL(cusparseSpMM, (void *, int, int, const void *, void *, void *, const void *, void *, int, int, void *), handle, N, N, &one,
         matrix, right, &zero, left, REAL_32, 0, buffer);
    close("matrix and matrix", host(out, rows * wide), expected, 1e-5);
    CALL(cusparseDestroy, (void *), handle);
}

int main(int count, char **arguments) { return run_sections<Status>(count, arguments, "# rtol=1e-5 atol=1e-7", 60, describe); }
