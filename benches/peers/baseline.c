/* The baseline: what an echo server cannot do without on Linux, and nothing else. Accept, one read, one write; no timers, no limits, no
 * heartbeat, no framing, no error handling worth the name. Everything that a real server costs, it costs above this.
 *
 *   baseline PORT [PREFIX]        PREFIX, such as "echo: ", goes before each line, as heartline's echo does; without it bytes come back as read
 *   baseline PORT fan-out         each read goes to all other connections: a bare write loop
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 1024
#define MAX_FD (1 << 20)

static char in[64 * 1024];
static char out[sizeof in * 8];
static char open_fd[MAX_FD];
static int highest;

/* Copies each line of in[0..n) to out with the prefix before it. A read that ends in the middle of a line is good enough for a baseline. */
static size_t prefix_lines(const char *prefix, size_t prefix_len, size_t n) {
    size_t written = 0;
    for (size_t start = 0; start < n;) {
        char *lf = memchr(in + start, '\n', n - start);
        size_t len = lf ? (size_t)(lf - (in + start)) + 1 : n - start;
        memcpy(out + written, prefix, prefix_len);
        memcpy(out + written + prefix_len, in + start, len);
        written += prefix_len + len;
        start += len;
    }
    return written;
}

int main(int argc, char **argv) {
    const char *prefix = argc > 2 ? argv[2] : "";
    int fan_out = strcmp(prefix, "fan-out") == 0;
    size_t prefix_len = fan_out ? 0 : strlen(prefix);

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* inherited by what is accepted */
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 4096)) {
        perror("baseline");
        return 1;
    }
    socklen_t len = sizeof addr;
    getsockname(listener, (struct sockaddr *)&addr, &len);
    printf("listening 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);

    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int peer;
                while ((peer = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
                    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
                    event.data.fd = peer;
                    epoll_ctl(poll, EPOLL_CTL_ADD, peer, &event);
                    open_fd[peer] = 1;
                    if (peer > highest) highest = peer;
                }
                continue;
            }
            ssize_t n = recv(fd, in, sizeof in, 0);
            if (n <= 0 || events[i].events & (EPOLLRDHUP | EPOLLHUP)) {
                open_fd[fd] = 0;
                close(fd);
            } else if (fan_out) {
                for (int to = 0; to <= highest; to++)
                    if (open_fd[to] && to != fd) send(to, in, n, MSG_NOSIGNAL);
            } else if (prefix_len) {
                send(fd, out, prefix_lines(prefix, prefix_len, n), MSG_NOSIGNAL);
            } else {
                send(fd, in, n, MSG_NOSIGNAL);
            }
        }
    }
}
