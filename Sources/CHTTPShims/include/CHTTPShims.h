/*
 * The variadic calls of libmicrohttpd and libcurl, which Swift cannot make, with fixed types.
 * Nothing else lives here. No feature-test macro may appear in this header.
 */
#pragma once

#include <curl/curl.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

struct fm_http_server_options {
	int listen_socket;	    /* taken over by the daemon */
	unsigned threads;	    /* size of the pool; 0: one thread per connection */
	unsigned connections_max;   /* more are not accepted until one ends */
	unsigned idle_timeout_s;    /* a connection that is silent this long is closed */
	size_t connection_memory;   /* bytes for request line and headers */
	size_t thread_stack;	    /* bytes */
};

/* MHD_start_daemon; NULL with errno on failure. */
struct MHD_Daemon *fm_http_server_start(const struct fm_http_server_options *options,
					MHD_AccessHandlerCallback handler,
					MHD_RequestCompletedCallback completed, void *context);

/* curl_easy_setopt by the kind of its argument. */
CURLcode fm_curl_set_number(CURL *handle, CURLoption option, long value);
CURLcode fm_curl_set_text(CURL *handle, CURLoption option, const char *value);
CURLcode fm_curl_set_pointer(CURL *handle, CURLoption option, const void *value);
CURLcode fm_curl_set_list(CURL *handle, CURLoption option, struct curl_slist *value);

/* Sets CURLOPT_WRITEFUNCTION and CURLOPT_HEADERFUNCTION, both with this context. */
typedef size_t (*fm_curl_sink)(char *bytes, size_t size, size_t count, void *context);
CURLcode fm_curl_set_sinks(CURL *handle, fm_curl_sink body, fm_curl_sink header, void *context);

/* CURLOPT_XFERINFOFUNCTION, called about once a second at least; not 0 ends the transfer. */
typedef int (*fm_curl_pulse)(void *context, curl_off_t down_total, curl_off_t down_now,
			     curl_off_t up_total, curl_off_t up_now);
CURLcode fm_curl_set_pulse(CURL *handle, fm_curl_pulse pulse, void *context);

/* CURLINFO_RESPONSE_CODE; 0 when there is none. */
long fm_curl_status(CURL *handle);
