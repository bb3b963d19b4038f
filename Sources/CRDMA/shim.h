/* Pulled in for its compiler and linker flags; the calls are in CVerbsShims. */
#pragma once
