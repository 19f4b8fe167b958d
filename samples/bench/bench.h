// For the benchmark programs: clocks, and figures printed as JSON lines.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <time.h>
#include <unistd.h>

#include "lookup.h"

inline double now_s() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

inline void figure(const std::string &name, double value, const char *unit, const char *better) {
    printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"better\": \"%s\"}\n", name.c_str(), value, unit, better);
    fflush(stdout);
}

inline void failed(const std::string &name, const Failure &failure) {
    printf("{\"name\": \"%s\", \"error\": \"%s: %d\"}\n", name.c_str(), failure.what, failure.code);
    fflush(stdout);
}

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// Median seconds of `body`, called after one warm-up until `budget_s` is spent, at least `least` times.
template <class Body> double median_seconds(Body body, double budget_s = 0.15, int least = 3) {
    body();
    std::vector<double> times;
    const double end = now_s() + budget_s;
    while (static_cast<int>(times.size()) < least || now_s() < end) {
        const double begin = now_s();
        body();
        times.push_back(now_s() - begin);
    }
    return median(times);
}

// Prints microseconds per operation: the median over batches of `count` operations.
template <class Body>
void per_operation(const std::string &name, int count, Body operation, double budget_s = 0.2) {
    try {
        const double seconds = median_seconds(
            [&] {
                for (int i = 0; i < count; i++)
                    operation();
            },
            budget_s);
        figure(name, seconds / count * 1e6, "us", "lower");
    } catch (const Failure &failure) {
        failed(name, failure);
    }
}

inline std::string size_name(size_t bytes) {
    if (bytes >= (size_t{1} << 30))
        return std::to_string(bytes >> 30) + " GiB";
    if (bytes >= (1 << 20))
        return std::to_string(bytes >> 20) + " MiB";
    return std::to_string(bytes >> 10) + " KiB";
}

inline std::vector<char> file_beside_program(const char *name) {
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    const std::string program(path, length > 0 ? length : 0);
    std::ifstream file(program.substr(0, program.rfind('/') + 1) + name, std::ios::binary);
    if (!file) {
        fprintf(stderr, "no %s beside the program\n", name);
        exit(1);
    }
    return std::vector<char>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}
