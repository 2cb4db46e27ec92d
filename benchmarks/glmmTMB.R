# REML fit of a benchmark's model. Arguments: a folder with table.csv, the model. Prints one line of JSON.
# Mediation is fitted as stacked rows with a residual SD for each equation.
suppressPackageStartupMessages(library(glmmTMB))
arguments <- commandArgs(trailingOnly = TRUE)
frame <- read.csv(file.path(arguments[1], "table.csv"))
if (arguments[2] == "mediation") {
  m <- data.frame(frame[c("therapist", "patient")], value = frame$alliance, equation = "alliance",
                  alliance_Intercept = 1, alliance_exposure = frame$exposure,
                  symptoms_Intercept = 0, symptoms_exposure = 0, symptoms_alliance = 0)
  y <- data.frame(frame[c("therapist", "patient")], value = frame$symptoms, equation = "symptoms",
                  alliance_Intercept = 0, alliance_exposure = 0,
                  symptoms_Intercept = 1, symptoms_exposure = frame$exposure, symptoms_alliance = frame$alliance)
  frame <- rbind(m, y)
  terms <- paste(names(m)[5:9], collapse = " + ")
  formula <- as.formula(sprintf("value ~ 0 + %s + (0 + %s | therapist) + (0 + %s | patient)", terms, terms, terms))
  dispersion <- ~ 0 + equation
} else {
  formula <- symptoms ~ exposure + restructuring + alliance +
    (1 + exposure + restructuring + alliance | therapist) +
    (1 + exposure + restructuring + alliance | patient)
  dispersion <- ~ 1
}
time <- system.time(fit <- suppressWarnings(glmmTMB(formula, frame, dispformula = dispersion, REML = TRUE)))
named <- function(values) {
  labels <- sub("^\\(Intercept\\)$", "Intercept", names(values))
  paste(sprintf('"%s": %.10g', labels, values), collapse = ", ")
}
sd <- function(group) named(attr(VarCorr(fit)$cond[[group]], "stddev"))
converged <- fit$fit$convergence == 0 && isTRUE(fit$sdr$pdHess)
correlation <- function(group) attr(VarCorr(fit)$cond[[group]], "correlation")
edge <- any(sapply(c("patient", "therapist"), function(g) {
  matrix <- correlation(g)
  anyNA(matrix) || min(eigen(matrix, TRUE, TRUE)$values) < 1e-4
}))
cat(sprintf(
  paste0(
    '\n{"wall_seconds": %.3f, "cpu_seconds": %.3f, "converged": %s, "singular": %s, "sd_patient": {%s}, ',
    '"sd_therapist": {%s}, "beta": {%s}, "r": "%s", "version": "%s"}\n'
  ),
  time[["elapsed"]], time[["user.self"]] + time[["sys.self"]], if (converged) "true" else "false",
  if (edge) "true" else "false", sd("patient"), sd("therapist"), named(fixef(fit)$cond),
  paste(R.version$major, R.version$minor, sep = "."), packageVersion("glmmTMB")
))
