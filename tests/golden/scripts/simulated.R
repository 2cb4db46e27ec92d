# Fits inputs/simulated.csv with nlme and lme4 and writes simulated_r.json and simulated_session_info.txt.
# Run from tests/golden:  Rscript scripts/simulated.R
library(nlme)
library(lme4)
d <- read.csv("inputs/simulated.csv")
d$therapist <- factor(d$therapist)
d$patient <- factor(d$patient)

number <- function(x) paste0("[", paste(formatC(x, digits = 12, format = "g"), collapse = ", "), "]")
entry <- function(name, formula, method, fixef, se, levels, sigma, phi, loglik) {
  body <- paste(sprintf('"%s": {"variances": %s, "covariance": %s}', names(levels),
    sapply(levels, function(v) number(diag(v))),
    sapply(levels, function(v) if (nrow(v) == 2) formatC(v[1, 2], digits = 12, format = "g") else "null")), collapse = ", ")
  sprintf('  "%s": {"formula": "%s", "method": "%s", "fixef": %s, "se": %s, "levels": {%s}, "sigma": %s, "phi": %s, "log_likelihood": %s}',
    name, formula, method, number(fixef), number(se), body, formatC(sigma, digits = 12, format = "g"),
    if (is.na(phi)) "null" else formatC(phi, digits = 12, format = "g"), formatC(as.numeric(loglik), digits = 12, format = "g"))
}
from_lme <- function(name, formula, fit) {
  covariances <- lapply(fit$modelStruct$reStruct, function(s) as.matrix(s) * fit$sigma^2)
  phi <- as.numeric(coef(fit$modelStruct$corStruct, unconstrained = FALSE))
  entry(name, formula, fit$method, fixef(fit), sqrt(diag(vcov(fit))), covariances, fit$sigma, if (length(phi)) phi else NA, logLik(fit))
}
from_lmer <- function(name, formula, fit) {
  covariances <- lapply(VarCorr(fit), function(v) matrix(as.numeric(v), nrow(v)))
  entry(name, formula, if (isREML(fit)) "REML" else "ML", fixef(fit), sqrt(diag(as.matrix(vcov(fit)))), covariances, sigma(fit), NA, logLik(fit))
}

control <- lmeControl(msMaxIter = 500, opt = "optim", reltol = 1e-12, msTol = 1e-10)
gaps <- corCAR1(form = ~ session | therapist / patient)
ri <- list(therapist = ~1, patient = ~1)
rs <- list(therapist = ~t, patient = ~t)
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
out <- c(
  from_lme("ar1_intercepts_ML", "y ~ t + x, random = list(therapist = ~1, patient = ~1), corCAR1(~session)",
    lme(y ~ t + x, random = ri, correlation = gaps, data = d, method = "ML", control = control)),
  from_lme("ar1_intercepts_REML", "y ~ t + x, random = list(therapist = ~1, patient = ~1), corCAR1(~session)",
    lme(y ~ t + x, random = ri, correlation = gaps, data = d, method = "REML", control = control)),
  from_lme("ar1_slopes_ML", "y ~ t + x, random = list(therapist = ~t, patient = ~t), corCAR1(~session)",
    lme(y ~ t + x, random = rs, correlation = gaps, data = d, method = "ML", control = control)),
  from_lmer("slopes_ML", "y ~ t + x + (t | therapist) + (t | patient)",
    lmer(y ~ t + x + (t | therapist) + (t | patient), d, REML = FALSE, control = tight)),
  from_lmer("slopes_REML", "y ~ t + x + (t | therapist) + (t | patient)",
    lmer(y ~ t + x + (t | therapist) + (t | patient), d, control = tight)),
  from_lmer("four_levels_ML", "y ~ t + x + (1 | clinic) + (1 | therapist) + (t | patient)",
    lmer(y ~ t + x + (1 | clinic) + (1 | therapist) + (t | patient), d, REML = FALSE, control = tight))
)
writeLines(c("{", paste(out, collapse = ",\n"), "}"), "simulated_r.json")
info <- sessionInfo()
writeLines(c(info$R.version$version.string, info$platform,
  paste("nlme", packageVersion("nlme")), paste("lme4", packageVersion("lme4"))), "simulated_session_info.txt")
