// Named checks of one program, in the form that samples/libraries/sections.py describes; each in a forked child.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <csignal>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct Section {
    const char *name;
    void (*body)();
};

inline std::vector<Section> &sections() {
    static std::vector<Section> all;
    return all;
}

struct Registered {
    Registered(const char *name, void (*body)()) { sections().push_back({name, body}); }
};

// SECTION(name) { ... }: runs in a process of its own, where the driver has not been used yet.
#define SECTION(name)                                                                                                  \
    static void section_##name();                                                                                      \
    static const Registered registered_##name(#name, section_##name);                                                  \
    static void section_##name()

// The section cannot run here.
struct Skip {
    std::string why;
};

// The section found something wrong.
struct Wrong {
    std::string what;
};

__attribute__((format(printf, 1, 2))) inline std::string text(const char *format, ...) {
    char buffer[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(buffer, sizeof(buffer), format, values);
    va_end(values);
    return buffer;
}

#define ENSURE(condition, ...)                                                                                         \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            throw Wrong{text(__VA_ARGS__)};                                                                            \
    } while (0)

// Runs all sections, or those named as arguments, each for `limit_s` seconds at most. `describe` makes the end of a section's output of
// what the section threw: "failed: why" or "skipped: why".
template <class Error>
int run_sections(int count, char **arguments, const char *header, unsigned limit_s, std::string (*describe)(const Error &)) {
    setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
    printf("%s\n", header);
    for (const Section &section : sections()) {
        bool wanted = count <= 1;
        for (int i = 1; i < count; i++)
            wanted = wanted || strcmp(arguments[i], section.name) == 0;
        if (!wanted)
            continue;
        printf("== %s\n", section.name);
        fflush(stdout);
        const pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 1;
        }
        if (child == 0) {
            alarm(limit_s);
            try {
                timespec begin, end;
                clock_gettime(CLOCK_MONOTONIC, &begin);
                section.body();
                clock_gettime(CLOCK_MONOTONIC, &end);
                printf("-- ok %.2f s\n", double(end.tv_sec - begin.tv_sec) + double(end.tv_nsec - begin.tv_nsec) * 1e-9);
            } catch (const Skip &skip) {
                printf("-- skipped: %s\n", skip.why.c_str());
            } catch (const Wrong &wrong) {
                printf("-- failed: %s\n", wrong.what.c_str());
            } catch (const Error &error) {
                printf("-- %s\n", describe(error).c_str());
            }
            // With everything that the libraries do at exit.
            exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
            printf("-- failed: ended after %u s\n", limit_s);
        else if (WIFSIGNALED(status))
            printf("-- failed: signal %d\n", WTERMSIG(status));
        else if (WEXITSTATUS(status) != 0)
            printf("-- failed: exit code %d\n", WEXITSTATUS(status));
        fflush(stdout);
    }
    return 0;
}
