#include "common/child.h"
