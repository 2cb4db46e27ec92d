# Expected ranks of the subjects of sleepstudy by the normal approximation of Lingsma et al. (2010), as merTools states it:
# ER_i = 1 + sum over k != i of Phi((theta_i - theta_k) / sqrt(var_i + var_k)), theta and var from lme4::ranef.
# Rscript tests/posterior/golden/sleepstudy_ranks.R > tests/posterior/golden/sleepstudy_ranks.json
suppressMessages(library(lme4))
fit <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = TRUE)
effects <- ranef(fit, condVar = TRUE)$Subject
variance <- attr(effects, "postVar")
ranks <- function(theta, v) {
  sapply(seq_along(theta), function(i) 1 + sum(pnorm((theta[i] - theta[-i]) / sqrt(v[i] + v[-i]))))
}
number <- function(x) paste0("[", paste(sprintf("%.10g", x), collapse = ", "), "]")
vc <- as.data.frame(VarCorr(fit))
cat("{\n")
cat(sprintf('  "software": "%s, lme4 %s",\n', R.version.string, packageVersion("lme4")))
cat('  "formula": "Reaction ~ Days + (Days | Subject), REML",\n')
cat(sprintf('  "subjects": ["%s"],\n', paste(rownames(effects), collapse = '", "')))
cat(sprintf('  "fixef": %s,\n', number(fixef(fit))))
cat(sprintf('  "sd": %s,\n', number(vc$sdcor[1:2])))
cat(sprintf('  "corr": %.10g,\n  "sigma": %.10g,\n', vc$sdcor[3], sigma(fit)))
for (j in 1:2) {
  name <- c("Intercept", "time")[j]
  cat(sprintf('  "ranef_%s": %s,\n', name, number(effects[, j])))
  cat(sprintf('  "variance_%s": %s,\n', name, number(variance[j, j, ])))
  cat(sprintf('  "expected_rank_%s": %s%s\n', name, number(ranks(effects[, j], variance[j, j, ])), if (j == 1) "," else ""))
}
cat("}\n")
