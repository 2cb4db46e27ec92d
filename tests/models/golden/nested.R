# Golden values of a partially nested trial with one residual SD an arm, by nlme.
# Rscript nested.R <folder of nested_study.csv>  writes nested_r.json beside the study.
args <- commandArgs(trailingOnly = TRUE)
suppressMessages(library(nlme))
study <- read.csv(file.path(args[1], "nested_study.csv"))
fit <- lme(
  y ~ session + arm, random = list(therapist = ~ 0 + arm, patient = ~ 1),
  weights = varIdent(form = ~ 1 | arm), data = study, method = "ML",
  control = lmeControl(maxIter = 200, msMaxIter = 500, tolerance = 1e-10, msTol = 1e-12)
)
sd <- function(level) sqrt(as.matrix(fit$modelStruct$reStruct)[[level]][1, 1]) * fit$sigma
ratio <- coef(fit$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)
number <- function(v) paste0("[", paste(format(v, digits = 15), collapse = ", "), "]")
cat(sprintf(
  '{\n"software": "%s, nlme %s",\n"fixed_labels": ["Intercept", "time", "arm"],\n"fixed": %s,\n"sd_therapist": %s,\n"sd_patient": %s,\n"sigma_arms": ["0", "1"],\n"sigma": %s,\n"log_likelihood": %s\n}\n',
  R.version.string, packageVersion("nlme"), number(unname(fixef(fit))), format(sd("therapist"), digits = 15),
  format(sd("patient"), digits = 15), number(unname(fit$sigma * ratio[c("0", "1")])),
  format(as.numeric(logLik(fit)), digits = 15)
), file = file.path(args[1], "nested_r.json"))
