// The Metal Shading Language on a CPU, as far as kernels for MLX use it; for clang 17 and newer.
#pragma once
#include "atomic.h"
#include "matrix.h"
