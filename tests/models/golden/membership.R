# Golden values of multiple membership, by lme4 with the therapists' columns of Zt replaced by weights made here.
# Rscript membership.R <folder of membership_study.csv>  writes membership_r.json beside the study.
args <- commandArgs(trailingOnly = TRUE)
suppressMessages(library(lme4))
study <- read.csv(file.path(args[1], "membership_study.csv"))
therapists <- sort(unique(study$therapist))

# Shares of the sessions of the patient up to and including session s.
weights <- function(patient, s) {
  so_far <- study$therapist[study$patient == patient & study$session <= s]
  tabulate(match(so_far, therapists), length(therapists)) / length(so_far)
}
replaced <- function(formula, data, W) {
  parsed <- lFormula(formula, data = data, REML = FALSE)
  block <- which(names(parsed$reTrms$cnms) == "therapist")
  at <- (parsed$reTrms$Gp[block] + 1):parsed$reTrms$Gp[block + 1]
  stopifnot(length(at) == length(therapists))
  parsed$reTrms$Zt[at, ] <- Matrix(t(W), sparse = TRUE)
  parsed$reTrms$Ztlist[[block]] <- parsed$reTrms$Zt[at, ]
  deviance <- do.call(mkLmerDevfun, c(parsed, list(control = lmerControl(optimizer = "bobyqa"))))
  best <- optimizeLmer(deviance, optimizer = "bobyqa", control = list(rhoend = 1e-12))
  mkMerMod(environment(deviance), best, parsed$reTrms, fr = parsed$fr)
}
# Every therapist needs a level of the factor, whoever holds the rows: lme4 makes one column each.
with_levels <- function(data) {
  data$therapist <- factor(rep_len(therapists, nrow(data)), levels = therapists)
  data
}
number <- function(v) paste0("[", paste(format(unname(v), digits = 15), collapse = ", "), "]")
entry <- function(name, fit, W) {
  sd <- sapply(VarCorr(fit), function(v) attr(v, "stddev")[[1]])
  # Predictions of the effects: those of unshared therapists are shrunken mean residuals.
  effects <- ranef(fit)$therapist[therapists, 1]
  sprintf(
    '"%s": {"fixed": %s, "sd": {%s}, "sigma": %s, "log_likelihood": %s, "effects": %s, "weights_of_first_rows": %s}',
    name, number(fixef(fit)), paste(sprintf('"%s": %s', names(sd), format(sd, digits = 15)), collapse = ", "),
    format(sigma(fit), digits = 15), format(as.numeric(logLik(fit)), digits = 15), number(effects),
    number(as.vector(t(W[seq_len(min(nrow(W), 70)), ])))
  )
}

by_session <- study[order(study$patient, study$session), ]
W <- t(mapply(weights, by_session$patient, by_session$session))
to_date <- replaced(y ~ session + (1 | patient) + (1 | therapist), with_levels(by_session), W)
last <- by_session[!duplicated(by_session$patient, fromLast = TRUE), ]
W_last <- t(mapply(weights, last$patient, last$session))
after <- replaced(score_post ~ score_pre + (1 | therapist), with_levels(last), W_last)
cat(sprintf(
  '{\n"software": "%s, lme4 %s",\n"therapists": [%s],\n%s,\n%s\n}\n', R.version.string, packageVersion("lme4"),
  paste(sprintf('"%s"', therapists), collapse = ", "), entry("to date", to_date, W), entry("multiple", after, W_last)
), file = file.path(args[1], "membership_r.json"))
