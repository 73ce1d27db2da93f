// Measures llama.cpp for `cargo xtask bench inference`, through its public interface.
//
// llama-driver MODEL THREADS loads the model and says `measured 0 MICROSECONDS`, then answers each
// line of its input with `measured TOKENS MICROSECONDS`: `first TOKENS`, if it is the first line, in
// the context that was made while loading and that nothing has warmed, `prefill TOKENS SALT` or
// `decode SEQUENCES PROMPT_TOKENS STEPS SALT`. `load STREAMS PROMPT STEPS LONGS PROMPT STEPS PAUSE_MS
// MS SALT` serves so many clients for so many milliseconds and says `listed COUNT MICROSECONDS...`:
// how long the first tokens of COUNT answers took, then what lay between tokens. `foretell WINDOW
// TOKEN...` reads the tokens in windows of that length and says `listed LOSS FORETOLD READ
// MICROSECONDS`: what all tokens but each window's first cost in nats, together. Every measurement
// has a context of just the size it needs, and nothing is sampled: the best case of llama.cpp in
// speed and in memory. Ends when its input ends.
//
// llama-driver --quantize IN OUT TYPE writes a file in another form, by llama.cpp's number of it,
// says how long that took as if it had loaded it, and ends.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "llama.h"

namespace {

using Clock = std::chrono::steady_clock;

// Tokens submitted together at most: as llama.cpp's own programs do by default.
constexpr int BATCH = 2048;

[[noreturn]] void fail(const std::string & what) {
    std::fprintf(stderr, "llama-driver: %s\n", what.c_str());
    std::exit(1);
}

void report(int tokens, Clock::time_point began) {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began);
    std::printf("measured %d %lld\n", tokens, static_cast<long long>(took.count()));
    std::fflush(stdout);
}

// What a token costs in nats.
double lost(const float * logits, int count, llama_token token) {
    const float highest = *std::max_element(logits, logits + count);
    double sum = 0.0;
    for (int at = 0; at < count; at++) {
        sum += std::exp(static_cast<double>(logits[at] - highest));
    }
    return std::log(sum) - static_cast<double>(logits[token] - highest);
}

struct Tokens {
    llama_batch batch = llama_batch_init(BATCH, 0, 1);

    ~Tokens() { llama_batch_free(batch); }

    void clear() { batch.n_tokens = 0; }

    void add(llama_token token, int position, int sequence, bool wanted) {
        const int at = batch.n_tokens++;
        batch.token[at] = token;
        batch.pos[at] = position;
        batch.n_seq_id[at] = 1;
        batch.seq_id[at][0] = sequence;
        batch.logits[at] = wanted;
    }
};

// Somebody who asks again when an answer has ended, after a pause.
struct Client {
    int prompt;
    int steps;
    std::chrono::milliseconds pause;
    Clock::time_point asked;
    Clock::time_point last;
    // Tokens of the prompt that were computed, and of the answer.
    int computed = 0;
    int drawn = 0;
    // Whether the batch at hand gives its next token.
    bool draws = false;
};

struct Driver {
    llama_model * model = nullptr;
    int threads = 1;

    llama_context * context(int sequences, int tokens) const {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = static_cast<uint32_t>(sequences * tokens);
        params.n_batch = BATCH;
        params.n_seq_max = static_cast<uint32_t>(sequences);
        params.n_threads = threads;
        params.n_threads_batch = threads;
        llama_context * made = llama_init_from_model(model, params);
        if (made == nullptr) {
            fail("no context");
        }
        return made;
    }

    llama_token token(int index) const {
        const int known = llama_vocab_n_tokens(llama_model_get_vocab(model));
        return (1000 + index * 7 % 20000) % known;
    }

    void compute(llama_context * context, Tokens & tokens) const {
        if (llama_decode(context, tokens.batch) != 0) {
            fail("a batch could not be computed");
        }
        llama_synchronize(context);
        tokens.clear();
    }

    // The first use of a context makes its threads and buffers, which is not what is measured.
    void warm(llama_context * context, Tokens & tokens) const {
        for (int at = 0; at < 16; at++) {
            tokens.add(token(at), at, 0, at == 15);
        }
        compute(context, tokens);
        llama_memory_clear(llama_get_memory(context), true);
    }

    // The first prompt of all.
    void first(llama_context * made, int count) const {
        Tokens tokens;
        const auto began = Clock::now();
        for (int at = 0; at < count; at++) {
            tokens.add(token(at), at, 0, at == count - 1);
        }
        compute(made, tokens);
        report(count, began);
    }

    void prefill(int count) const {
        Tokens tokens;
        llama_context * made = context(1, count + 1);
        warm(made, tokens);
        const auto began = Clock::now();
        for (int at = 0; at < count; at++) {
            tokens.add(token(at), at, 0, at == count - 1);
        }
        compute(made, tokens);
        report(count, began);
        llama_free(made);
    }

    void decode(int sequences, int prompt, int steps) const {
        Tokens tokens;
        llama_context * made = context(sequences, prompt + steps);
        warm(made, tokens);
        for (int sequence = 0; sequence < sequences; sequence++) {
            for (int at = 0; at < prompt; at++) {
                tokens.add(token(at + sequence * prompt), at, sequence, at == prompt - 1);
            }
            compute(made, tokens);
        }
        const auto began = Clock::now();
        for (int step = 0; step < steps; step++) {
            for (int sequence = 0; sequence < sequences; sequence++) {
                tokens.add(token(step * 31 + sequence), prompt + step, sequence, true);
            }
            compute(made, tokens);
        }
        report(sequences * steps, began);
        llama_free(made);
    }

    // How well the tokens are foretold. What is timed are the logits of every token, without the
    // sums over the vocabulary. The first window is read twice, and timed once.
    void foretell(int window, const std::vector<int> & all) const {
        const int known = llama_vocab_n_tokens(llama_model_get_vocab(model));
        Tokens tokens;
        llama_context * made = context(1, window);
        double loss = 0.0;
        long long foretold = 0;
        Clock::duration took{};
        const int total = static_cast<int>(all.size());
        const auto read = [&](int first, int count) {
            llama_memory_clear(llama_get_memory(made), true);
            for (int at = 0; at < count; at++) {
                tokens.add(all[first + at], at, 0, true);
            }
            const auto began = Clock::now();
            compute(made, tokens);
            return Clock::now() - began;
        };
        read(0, std::min(window, total));
        for (int first = 0; first < total; first += window) {
            const int count = std::min(window, total - first);
            took += read(first, count);
            for (int at = 0; at + 1 < count; at++) {
                loss += lost(llama_get_logits_ith(made, at), known, all[first + at + 1]);
                foretold++;
            }
        }
        llama_free(made);
        const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
        std::printf("listed %.17g %lld %d %lld\n", loss, foretold, total, static_cast<long long>(micros));
        std::fflush(stdout);
    }

    // As llama.cpp's server batches by default: the next token of every answer first, then as much
    // of the waiting prompts, in turn, as the batch holds.
    void gather(std::vector<Client> & clients, Tokens & tokens) const {
        const int count = static_cast<int>(clients.size());
        for (int at = 0; at < count; at++) {
            Client & client = clients[at];
            client.draws = client.computed == client.prompt;
            if (client.draws) {
                tokens.add(token(client.drawn * 31 + at), client.prompt + client.drawn - 1, at, true);
            }
        }
        const auto now = Clock::now();
        for (int at = 0; at < count; at++) {
            Client & client = clients[at];
            while (client.asked <= now && client.computed < client.prompt && tokens.batch.n_tokens < BATCH) {
                const int position = client.computed++;
                client.draws = client.computed == client.prompt;
                tokens.add(token(position + at * 977), position, at, client.draws);
            }
        }
    }

    void load(std::vector<Client> clients, std::chrono::milliseconds lasts) const {
        int longest = 0;
        for (const Client & client : clients) {
            longest = std::max(longest, client.prompt + client.steps);
        }
        Tokens tokens;
        llama_context * made = context(static_cast<int>(clients.size()), longest);
        warm(made, tokens);
        std::vector<long long> firsts;
        std::vector<long long> between;
        const auto micros = [](Clock::duration took) {
            return static_cast<long long>(
                std::chrono::duration_cast<std::chrono::microseconds>(took).count());
        };
        const auto end = Clock::now() + lasts;
        for (Client & client : clients) {
            client.asked = Clock::now();
        }
        while (Clock::now() < end) {
            gather(clients, tokens);
            if (tokens.batch.n_tokens == 0) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                continue;
            }
            compute(made, tokens);
            const auto now = Clock::now();
            for (size_t at = 0; at < clients.size(); at++) {
                Client & client = clients[at];
                if (!client.draws) {
                    continue;
                }
                if (client.drawn == 0) {
                    firsts.push_back(micros(now - client.asked));
                } else {
                    between.push_back(micros(now - client.last));
                }
                client.last = now;
                if (++client.drawn == client.steps) {
                    llama_memory_seq_rm(llama_get_memory(made), static_cast<llama_seq_id>(at), -1, -1);
                    client.computed = client.drawn = 0;
                    client.asked = now + client.pause;
                }
            }
        }
        llama_free(made);
        std::printf("listed %zu", firsts.size());
        for (const auto & times : { firsts, between }) {
            for (const long long time : times) {
                std::printf(" %lld", time);
            }
        }
        std::printf("\n");
        std::fflush(stdout);
    }
};

// Clients of two kinds, and for how long they are served.
void load(const Driver & driver, const std::vector<int> & numbers) {
    using std::chrono::milliseconds;
    std::vector<Client> clients;
    const Client streams{ numbers[1], numbers[2], milliseconds(0), {}, {} };
    const Client longs{ numbers[4], numbers[5], milliseconds(numbers[6]), {}, {} };
    clients.insert(clients.end(), static_cast<size_t>(numbers[0]), streams);
    clients.insert(clients.end(), static_cast<size_t>(numbers[3]), longs);
    driver.load(clients, milliseconds(numbers[7]));
}

// Tokens of a vocabulary, in windows that fit a batch.
bool can_be_foretold(const Driver & driver, const std::vector<int> & numbers) {
    const int known = llama_vocab_n_tokens(llama_model_get_vocab(driver.model));
    return numbers.size() > 2 && numbers[0] > 1 && numbers[0] <= BATCH
        && std::all_of(numbers.begin() + 1, numbers.end(), [&](int token) { return token < known; });
}

// By llama.cpp's own rules, as its program for that does without options.
void quantize(const char * from, const char * to, const char * type) {
    const auto began = Clock::now();
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = static_cast<llama_ftype>(std::atoi(type));
    if (llama_model_quantize(from, to, &params) != 0) {
        fail(std::string("cannot quantize ") + from);
    }
    report(0, began);
}

void warnings_only(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

} // namespace

int main(int argc, char ** argv) {
    llama_log_set(warnings_only, nullptr);
    if (argc == 5 && std::string(argv[1]) == "--quantize") {
        llama_backend_init();
        quantize(argv[2], argv[3], argv[4]);
        llama_backend_free();
        return 0;
    }
    if (argc != 3) {
        fail("usage: llama-driver MODEL THREADS, or llama-driver --quantize IN OUT TYPE");
    }
    Driver driver;
    driver.threads = std::max(1, std::atoi(argv[2]));
    const auto began = Clock::now();
    llama_backend_init();
    driver.model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (driver.model == nullptr) {
        fail(std::string("cannot load ") + argv[1]);
    }
    constexpr int FIRST = 512;
    llama_context * first = driver.context(1, FIRST);
    report(0, began);

    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string what;
        std::vector<int> numbers;
        words >> what;
        for (int number; words >> number;) {
            numbers.push_back(number);
        }
        // Answers and prompts of random tokens take the same time: the salt is the other side's.
        const bool positive = std::all_of(numbers.begin(), numbers.end(), [](int n) { return n >= 0; });
        if (what == "first" && first != nullptr && numbers.size() == 1 && positive && numbers[0] <= FIRST) {
            driver.first(first, numbers[0]);
            llama_free(first);
            first = nullptr;
            continue;
        }
        if (first != nullptr) {
            llama_free(first);
            first = nullptr;
        }
        if (what == "prefill" && numbers.size() == 2 && positive && numbers[0] <= BATCH) {
            driver.prefill(numbers[0]);
        } else if (what == "decode" && numbers.size() == 4 && positive && numbers[1] <= BATCH) {
            driver.decode(numbers[0], numbers[1], numbers[2]);
        } else if (what == "load" && numbers.size() == 9 && positive && numbers[0] + numbers[3] > 0) {
            load(driver, numbers);
        } else if (what == "foretell" && positive && can_be_foretold(driver, numbers)) {
            driver.foretell(numbers[0], { numbers.begin() + 1, numbers.end() });
        } else {
            fail("not understood: " + line);
        }
    }
    if (first != nullptr) {
        llama_free(first);
    }
    llama_model_free(driver.model);
    llama_backend_free();
    return 0;
}
