# Golden values of mediation models, by nlme (three levels, stacked equations) and lavaan (two-level MSEM).
# Rscript mediation.R <folder of mediation_study.csv> <Demo.twolevel.csv>  writes mediation_r.json beside the study.
args <- commandArgs(trailingOnly = TRUE)
suppressMessages({library(nlme); library(lavaan)})
study <- read.csv(file.path(args[1], "mediation_study.csv"))
n <- nrow(study)
both <- data.frame(
  therapist = rep(study$therapist, 2), patient = rep(study$patient, 2), x = rep(study$x, 2), m = rep(study$m, 2),
  z = c(study$m, study$y), dm = rep(c(1, 0), each = n), dy = rep(c(0, 1), each = n)
)
both$response <- ifelse(both$dm == 1, "m", "y")
fit <- lme(
  z ~ 0 + dm + dm:x + dy + dy:x + dy:m,
  random = list(therapist = pdSymm(~ 0 + dm + dy), patient = pdSymm(~ 0 + dm + dy + dm:x + dy:m)),
  weights = varIdent(form = ~ 1 | response), data = both, method = "ML",
  control = lmeControl(maxIter = 200, msMaxIter = 500, opt = "optim")
)
blocks <- lapply(as.matrix(fit$modelStruct$reStruct), function(v) unclass(v) * fit$sigma^2)
ratio <- coef(fit$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)
number <- function(v) paste0("[", paste(format(v, digits = 15), collapse = ", "), "]")
table <- function(m) paste0("[", paste(apply(m, 1, number), collapse = ", "), "]")
text <- function(v) paste0("[", paste0('"', v, '"', collapse = ", "), "]")

demo <- read.csv(args[2])
msem <- function(model) {
  fitted <- sem(model, data = demo, cluster = "cluster", estimator = "ML")
  est <- parameterEstimates(fitted)
  est <- est[est$label != "", c("label", "est", "se")]
  paste0("{", paste(sprintf('"%s": [%.10f, %.10f]', est$label, est$est, est$se), collapse = ", "), "}")
}
one <- msem("
 level: 1
  y2 ~ aw*y1
  y3 ~ bw*y2 + cw*y1
 level: 2
  y2 ~ ab*y1
  y3 ~ bb*y2 + cb*y1
 indw := aw*bw
 indb := ab*bb
")
two <- msem("
 level: 1
  y2 ~ bw*y1
 level: 2
  y1 ~ ab*w1
  y2 ~ bb*y1 + cb*w1
 indb := ab*bb
")
cat(sprintf(
  '{\n"software": "R %s, nlme %s, lavaan %s",\n"nlme": {"fixed_labels": %s, "fixed": %s, "therapist_labels": %s, "therapist": %s, "patient_labels": %s, "patient": %s, "sigma": {"m": %.12f, "y": %.12f}, "log_lik": %.8f},\n"lavaan_1_1_1": %s,\n"lavaan_2_1_1": %s\n}\n',
  getRversion(), packageVersion("nlme"), packageVersion("lavaan"), text(names(fixef(fit))), number(fixef(fit)),
  text(rownames(blocks$therapist)), table(blocks$therapist), text(rownames(blocks$patient)), table(blocks$patient),
  fit$sigma * ratio["m"], fit$sigma * ratio["y"], as.numeric(logLik(fit)), one, two
), file = file.path(args[1], "mediation_r.json"))
