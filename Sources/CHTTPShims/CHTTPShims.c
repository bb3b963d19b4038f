#include "CHTTPShims.h"
