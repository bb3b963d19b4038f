#include "CHTTPShims.h"

#include <sys/socket.h>

struct MHD_Daemon *fm_http_server_start(const struct fm_http_server_options *options,
					MHD_AccessHandlerCallback handler,
					MHD_RequestCompletedCallback completed, void *context)
{
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC;
	struct MHD_OptionItem items[] = {
		{ MHD_OPTION_LISTEN_SOCKET, options->listen_socket, NULL },
		{ MHD_OPTION_CONNECTION_LIMIT, options->connections_max, NULL },
		{ MHD_OPTION_CONNECTION_TIMEOUT, options->idle_timeout_s, NULL },
		{ MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)options->connection_memory, NULL },
		{ MHD_OPTION_THREAD_STACK_SIZE, (intptr_t)options->thread_stack, NULL },
		{ MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL },
		{ MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)completed, context },
		{ options->threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END,
		  options->threads, NULL },
		{ MHD_OPTION_END, 0, NULL },
	};

	if (options->threads == 0)
		flags |= MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL;
	else
		flags |= MHD_USE_EPOLL;
	return MHD_start_daemon(flags, 0, NULL, NULL, handler, context, MHD_OPTION_ARRAY, items,
				MHD_OPTION_END);
}

CURLcode fm_curl_set_number(CURL *handle, CURLoption option, long value)
{
	return curl_easy_setopt(handle, option, value);
}

CURLcode fm_curl_set_text(CURL *handle, CURLoption option, const char *value)
{
	return curl_easy_setopt(handle, option, value);
}

CURLcode fm_curl_set_pointer(CURL *handle, CURLoption option, const void *value)
{
	return curl_easy_setopt(handle, option, value);
}

CURLcode fm_curl_set_list(CURL *handle, CURLoption option, struct curl_slist *value)
{
	return curl_easy_setopt(handle, option, value);
}

CURLcode fm_curl_set_sinks(CURL *handle, fm_curl_sink body, fm_curl_sink header, void *context)
{
	CURLcode rc = curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, body);

	if (rc == CURLE_OK)
		rc = curl_easy_setopt(handle, CURLOPT_WRITEDATA, context);
	if (rc == CURLE_OK)
		rc = curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, header);
	if (rc == CURLE_OK)
		rc = curl_easy_setopt(handle, CURLOPT_HEADERDATA, context);
	return rc;
}

CURLcode fm_curl_set_pulse(CURL *handle, fm_curl_pulse pulse, void *context)
{
	CURLcode rc = curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, pulse);

	if (rc == CURLE_OK)
		rc = curl_easy_setopt(handle, CURLOPT_XFERINFODATA, context);
	if (rc == CURLE_OK)
		rc = curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
	return rc;
}

long fm_curl_status(CURL *handle)
{
	long status = 0;

	if (curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK)
		return 0;
	return status;
}
