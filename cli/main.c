#include "cli/cli.h"

int main(int argc, char **argv)
{
        return strato_main(argc, argv);
}
