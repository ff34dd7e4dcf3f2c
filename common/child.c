#include "common/child.h"
int child_run(const struct child *c, struct child_result *ret, struct err **e)
{
        return err_set(e, -ENOSYS, "not yet");
}
void child_result_done(struct child_result *r)
{
        buf_done(&r->out);
        buf_done(&r->err);
}
int child_check(const struct child *c, struct err **e)
{
        return err_set(e, -ENOSYS, "not yet");
}
