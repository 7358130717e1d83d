/* The least that a client of `heartline serve` must do, with the framing `lines`.
 *
 *     cc -o client client.c && ./client HOST PORT [BOUND]
 *
 * BOUND is heartbeat + retry * missed, in seconds: 20 by default. */
#define _DEFAULT_SOURCE
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int dial(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found)) return -1;
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen)) { close(fd); fd = -1; }
    freeaddrinfo(found);
    return fd;
}

/* Reads until the connection ends. Returns whether the server said anything. */
static int hold(int fd, double bound) {
    static char line[65536 + 2];
    size_t length = 0;
    int heard = 0;
    double heard_at = now();
    if (write(fd, "hello\n", 6) < 0) return 0;
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, (int)(bound * 250)) == 0) {
            if (now() - heard_at >= bound) return heard; /* silent for too long: it is gone */
            if (write(fd, "ping\n", 5) < 0) return heard; /* any answer shows that it lives */
            continue;
        }
        ssize_t n = read(fd, line + length, sizeof line - 1 - length);
        if (n <= 0) return heard; /* closed by the server, or a line longer than it may be */
        heard = 1, heard_at = now(), length += n, line[length] = 0;
        for (char *end; (end = memchr(line, '\n', length)); length -= end + 1 - line,
                        memmove(line, end + 1, length)) {
            *end = 0;
            if (!strcmp(line, "ping")) { if (write(fd, "pong\n", 5) < 0) return heard; }
            else if (strcmp(line, "pong")) { puts(line); fflush(stdout); }
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    signal(SIGPIPE, SIG_IGN);
    srandom(getpid() ^ time(NULL));
    for (int failures = 0;;) {
        int fd = dial(argv[1], argv[2]);
        failures = fd >= 0 && hold(fd, argc > 3 ? atof(argv[3]) : 20) ? 0 : failures < 6 ? failures + 1 : 6;
        if (fd >= 0) close(fd);
        /* A random wait, so that a fleet does not come back at the same instant. */
        useconds_t most = failures < 6 ? 500000u << failures : 30000000u;
        usleep(50000 + random() % most);
    }
}
