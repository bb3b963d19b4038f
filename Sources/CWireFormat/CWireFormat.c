#include "CWireFormat.h"
