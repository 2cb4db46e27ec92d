# REML fit of a benchmark's model. Arguments: a folder with table.csv, the model. Prints one line of JSON.
suppressPackageStartupMessages(library(lme4))
arguments <- commandArgs(trailingOnly = TRUE)
frame <- read.csv(file.path(arguments[1], "table.csv"))
formula <- symptoms ~ exposure + restructuring + alliance +
  (1 + exposure + restructuring + alliance | therapist) +
  (1 + exposure + restructuring + alliance | patient)
time <- system.time(fit <- suppressWarnings(suppressMessages(lmer(formula, frame, REML = TRUE))))
named <- function(values) {
  labels <- sub("^\\(Intercept\\)$", "Intercept", names(values))
  paste(sprintf('"%s": %.10g', labels, values), collapse = ", ")
}
sd <- function(group) named(attr(VarCorr(fit)[[group]], "stddev"))
cat(sprintf(
  paste0(
    '\n{"wall_seconds": %.3f, "cpu_seconds": %.3f, "converged": %s, "singular": %s, "sd_patient": {%s}, ',
    '"sd_therapist": {%s}, "beta": {%s}, "r": "%s", "version": "%s"}\n'
  ),
  time[["elapsed"]], time[["user.self"]] + time[["sys.self"]],
  if (length(fit@optinfo$conv$lme4$messages)) "false" else "true", if (isSingular(fit)) "true" else "false",
  sd("patient"), sd("therapist"), named(fixef(fit)),
  paste(R.version$major, R.version$minor, sep = "."), packageVersion("lme4")
))
