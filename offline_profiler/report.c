#include "offline_profiler/profile.h"
hearth_status hearth_profile_report(const hearth_profile *p, const char *path, hearth_error *err)
{
    (void)p;
    return (hearth_status)ht_fail(ht_profile_err(err), HT_EUNSUPPORTED, "%s", path);
}
