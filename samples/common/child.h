// Runs this program again with an argument, as a fresh process, and keeps what it says.
#pragma once

#include <string>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

struct Child {
    std::string out, err;
    // Exit code, or -1 if a signal ended it.
    int exit_code = -1;
    int signal = 0;
};

inline Child run_self(const char *argument) {
    int out[2], err[2];
    fflush(stdout);
    fflush(stderr);
    if (pipe(out) != 0 || pipe(err) != 0) {
        perror("pipe");
        exit(1);
    }
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0) {
        dup2(out[1], 1);
        dup2(err[1], 2);
        for (int fd : {out[0], out[1], err[0], err[1]})
            close(fd);
        const char *arguments[] = {"sample", argument, nullptr};
        execv("/proc/self/exe", const_cast<char **>(arguments));
        perror("exec");
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    Child child;
    pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
    std::string *texts[2] = {&child.out, &child.err};
    int open = 2;
    while (open > 0) {
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            perror("poll");
            exit(1);
        }
        for (int i = 0; i < 2; i++) {
            if (fds[i].fd < 0 || fds[i].revents == 0)
                continue;
            char buffer[4096];
            ssize_t length = read(fds[i].fd, buffer, sizeof(buffer));
            if (length > 0) {
                texts[i]->append(buffer, length);
            } else {
                close(fds[i].fd);
                fds[i].fd = -1;
                open--;
            }
        }
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status))
        child.exit_code = WEXITSTATUS(status);
    else
        child.signal = WTERMSIG(status);
    return child;
}
