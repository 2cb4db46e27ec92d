# REML fit of the benchmark's model. Arguments: the table (CSV). Prints one line of JSON.
suppressPackageStartupMessages(library(lme4))
frame <- read.csv(commandArgs(trailingOnly = TRUE)[1])
formula <- symptoms ~ exposure + restructuring + alliance +
  (1 + exposure + restructuring + alliance | therapist) +
  (1 + exposure + restructuring + alliance | patient)
time <- system.time(fit <- suppressWarnings(suppressMessages(lmer(formula, frame, REML = TRUE))))
messages <- fit@optinfo$conv$lme4$messages
sd <- function(group) paste(format(attr(VarCorr(fit)[[group]], "stddev"), digits = 10), collapse = ", ")
cat(sprintf(
  paste0(
    '{"wall_seconds": %.3f, "cpu_seconds": %.3f, "converged": %s, "singular": %s, "sd_patient": [%s], ',
    '"sd_therapist": [%s], "beta": [%s], "r": "%s", "lme4": "%s"}\n'
  ),
  time[["elapsed"]], time[["user.self"]] + time[["sys.self"]],
  if (length(messages)) "false" else "true", if (isSingular(fit)) "true" else "false",
  sd("patient"), sd("therapist"), paste(format(fixef(fit), digits = 10), collapse = ", "),
  paste(R.version$major, R.version$minor, sep = "."), packageVersion("lme4")
))
