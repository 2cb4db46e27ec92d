#!/bin/sh
# Installs what benchmarks/rivals.py compares psymech with: R with brms, lme4 and glmmTMB from Debian's packages (as
# root), Bambi and pathmc from the Python registry into an environment of their own, .venv-rivals. Both by the ordinary
# clients. PyMC, nutpie and NumPyro in it are pinned to psymech's versions, so that the packages are compared and not
# their samplers.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    missing=
    for package in r-base-core r-cran-brms r-cran-rstan r-cran-lme4 r-cran-glmmtmb libboost-dev; do
        dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of names
        apt-get install -y -qq --no-install-recommends $missing
    fi
else
    echo "Not root on a Debian system: install R with brms, lme4 and glmmTMB yourself." >&2
fi

"$PYTHON" -m venv .venv-rivals
.venv-rivals/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
    "bambi==0.21.0" "pathmc==0.4.0" pymc nutpie arviz
.venv-rivals/bin/python -c "import bambi, pathmc; print('bambi', bambi.__version__, 'pathmc', pathmc.__version__)"
