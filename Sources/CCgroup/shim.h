#pragma once
#include <libcgroup.h>
