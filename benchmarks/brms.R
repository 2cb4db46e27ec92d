# A benchmark's model in brms, with the priors of psymech. Arguments: a folder with table.csv and priors.csv, the model,
# draws, warm-up, chains, cores, seed. Writes the draws of fixed effects, SDs, residual SDs and therapists' effects into
# the folder and prints one line of JSON.
suppressPackageStartupMessages({library(brms); library(posterior)})
# Debian's BH is empty: its headers are the system's.
if (system.file("include", package = "BH") == "") rstan::rstan_options(boost_lib = "/usr/include")
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
model <- arguments[2]
number <- as.integer(arguments[3:7])
frame <- read.csv(file.path(folder, "table.csv"))
given <- read.csv(file.path(folder, "priors.csv"), stringsAsFactors = FALSE, na.strings = character(0),
                  colClasses = "character")
priors <- do.call(c, lapply(seq_len(nrow(given)), function(i) {
  row <- given[i, ]
  set_prior(row$prior, class = row$class, coef = row$coef, group = row$group, resp = row$resp)
}))
formula <- if (model == "mediation") {
  bf(alliance ~ exposure + (1 + exposure | t | therapist) + (1 + exposure | p | patient)) +
    bf(symptoms ~ exposure + alliance + (1 + exposure + alliance | t | therapist) +
         (1 + exposure + alliance | p | patient)) + set_rescor(FALSE)
} else {
  bf(symptoms ~ exposure + restructuring + alliance +
       (1 + exposure + restructuring + alliance | therapist) +
       (1 + exposure + restructuring + alliance | patient))
}
cpu <- function() sum(proc.time()[c("user.self", "sys.self", "user.child", "sys.child")])
begin <- proc.time()[["elapsed"]]
empty <- brm(formula, frame, prior = priors, chains = 0, silent = 2)
compiled <- proc.time()[["elapsed"]]
fit <- update(
  empty, recompile = FALSE, iter = number[1] + number[2], warmup = number[2], chains = number[3], cores = number[4],
  seed = number[5], refresh = 10, silent = 0
)
end <- proc.time()[["elapsed"]]
times <- rstan::get_elapsed_time(fit$fit)
draws <- as_draws_array(fit)
kept <- grep("^(b_|sd_|sigma|r_therapist)", variables(draws), value = TRUE)
writeLines(kept, file.path(folder, "names.txt"))
writeBin(as.vector(unclass(subset_draws(draws, kept))), file.path(folder, "draws.bin"))
np <- nuts_params(fit)
sum_of <- function(name) sum(np$Value[np$Parameter == name])
cat(sprintf(
  paste0('\n{"compile_seconds": %.2f, "sampling_seconds": %.2f, "total_seconds": %.2f, "cpu_seconds": %.2f, ',
         '"divergences": %d, "gradients_after_warmup": %d, "version": "%s", "rstan": "%s"}\n'),
  compiled - begin, end - compiled, end - begin, sum(times), as.integer(sum_of("divergent__")),
  as.integer(sum_of("n_leapfrog__")), packageVersion("brms"), packageVersion("rstan")
))
