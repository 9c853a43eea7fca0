// Acts with an exported step through ONNX Runtime's C API.
//
//   c++ -std=c++17 -O2 policy.cpp -I ORT/include -L ORT/lib -lonnxruntime -o policy
//   ./policy step.onnx [TARGET_RETURN] < steps.txt
//
// ORT is an unpacked release of ONNX Runtime. The card, step.onnx.json, lies beside the file. A line
// of the input is one step: the reward of the last action, then the observation; a line `reset`
// begins an episode. A line of the output is an action.

#include <onnxruntime_c_api.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

const OrtApi *ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus *status)
{
    if (!status) return;
    const std::string message = ort->GetErrorMessage(status);
    ort->ReleaseStatus(status);
    throw std::runtime_error(message);
}

template <class T> using Owned = std::unique_ptr<T, void (*)(T *)>;
using Value = Owned<OrtValue>;

// What the card says, as text: the members of its object or list `name`, which holds no others.
std::string section(const std::string &card, const std::string &name)
{
    std::smatch found;
    const std::regex pattern("\"" + name + "\":\\s*[\\[{]([^\\]}]*)[\\]}]");
    if (!std::regex_search(card, found, pattern)) throw std::runtime_error("the card has no " + name);
    return found[1];
}

std::map<std::string, std::string> members(const std::string &text)
{
    std::map<std::string, std::string> found;
    const std::regex pattern("\"([^\"]+)\":\\s*\"?([^\",\\s]+)\"?");
    for (std::sregex_iterator each(text.begin(), text.end(), pattern), end; each != end; ++each)
        found[(*each)[1]] = (*each)[2];
    return found;
}

class Policy {
public:
    // target: the return to ask for; empty for the card's first one.
    Policy(const std::string &file, std::string target) : target_(target)
    {
        std::ifstream stream(file + ".json");
        if (!stream) throw std::runtime_error(file + ".json: not readable");
        const std::string card{std::istreambuf_iterator<char>(stream), {}};
        fills_ = members(section(card, "reset_state"));
        follows_ = members(section(card, "state"));
        if (target_.empty()) target_ = section(card, "target_returns");

        OrtEnv *env;
        check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "policy", &env));
        env_.reset(env);
        OrtSessionOptions *options;
        check(ort->CreateSessionOptions(&options));
        const Owned<OrtSessionOptions> owned(options, ort->ReleaseSessionOptions);
        check(ort->SetIntraOpNumThreads(options, 1));
        OrtSession *session;
        check(ort->CreateSession(env, file.c_str(), options, &session));
        session_.reset(session);
        OrtMemoryInfo *memory;
        check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
        memory_.reset(memory);
        describe(true);
        describe(false);
        reset();
    }

    // Before every episode: each part of the state is filled with one number.
    void reset()
    {
        for (const auto &[name, shape] : inputs_) {
            const std::string fill = fills_.count(name) ? fills_[name] : "0";
            numbers_[name].assign(size(shape), std::stof(fill == "target_return" ? target_ : fill));
        }
    }

    // reward: what the last action earned; 0 at an episode's start.
    std::vector<float> act(const std::vector<float> &observation, float reward)
    {
        if (observation.size() != numbers_["observation"].size())
            throw std::runtime_error("another number of observations");
        numbers_["observation"] = observation;
        if (numbers_.count("reward")) numbers_["reward"] = {reward};
        std::vector<Value> owned;
        std::vector<const char *> in, out;
        std::vector<const OrtValue *> given;
        for (const auto &[name, shape] : inputs_) {
            auto &data = numbers_[name];
            OrtValue *value;
            check(ort->CreateTensorWithDataAsOrtValue(memory_.get(), data.data(), 4 * data.size(),
                shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
            owned.emplace_back(value, ort->ReleaseValue);
            in.push_back(name.c_str());
            given.push_back(value);
        }
        for (const auto &[name, shape] : outputs_) out.push_back(name.c_str());
        std::vector<OrtValue *> results(out.size(), nullptr);
        check(ort->Run(session_.get(), nullptr, in.data(), given.data(), in.size(), out.data(),
            out.size(), results.data()));
        std::vector<float> action;
        for (std::size_t i = 0; i < results.size(); ++i) {
            const Value result(results[i], ort->ReleaseValue);
            void *data;
            check(ort->GetTensorMutableData(results[i], &data));
            const auto *first = static_cast<const float *>(data);
            const std::vector<float> values(first, first + size(outputs_[i].second));
            if (outputs_[i].first == "action") action = values;
            if (follows_.count(outputs_[i].first)) numbers_[follows_[outputs_[i].first]] = values;
        }
        return action;
    }

private:
    using Shape = std::vector<int64_t>;

    static std::size_t size(const Shape &shape)
    {
        std::size_t product = 1;
        for (const auto each : shape) product *= static_cast<std::size_t>(each);
        return product;
    }

    // Names and shapes of the inputs or outputs, for one environment.
    void describe(bool inputs)
    {
        std::size_t count;
        check((inputs ? ort->SessionGetInputCount : ort->SessionGetOutputCount)(session_.get(), &count));
        OrtAllocator *allocator;
        check(ort->GetAllocatorWithDefaultOptions(&allocator));
        for (std::size_t i = 0; i < count; ++i) {
            char *name;
            check((inputs ? ort->SessionGetInputName : ort->SessionGetOutputName)(
                session_.get(), i, allocator, &name));
            OrtTypeInfo *type;
            check((inputs ? ort->SessionGetInputTypeInfo : ort->SessionGetOutputTypeInfo)(
                session_.get(), i, &type));
            const Owned<OrtTypeInfo> owned(type, ort->ReleaseTypeInfo);
            const OrtTensorTypeAndShapeInfo *tensor;
            check(ort->CastTypeInfoToTensorInfo(type, &tensor));
            std::size_t dimensions;
            check(ort->GetDimensionsCount(tensor, &dimensions));
            Shape shape(dimensions);
            check(ort->GetDimensions(tensor, shape.data(), dimensions));
            for (auto &each : shape)
                if (each < 0) each = 1; // the batch
            (inputs ? inputs_ : outputs_).emplace_back(name, shape);
            check(ort->AllocatorFree(allocator, name));
        }
    }

    std::string target_;
    std::map<std::string, std::string> fills_, follows_; // input -> number; output -> next input
    std::vector<std::pair<std::string, Shape>> inputs_, outputs_;
    std::map<std::string, std::vector<float>> numbers_; // of each input
    Owned<OrtEnv> env_{nullptr, ort->ReleaseEnv};
    Owned<OrtSession> session_{nullptr, ort->ReleaseSession};
    Owned<OrtMemoryInfo> memory_{nullptr, ort->ReleaseMemoryInfo};
};

} // namespace

int main(int count, char **words)
try {
    if (count < 2) throw std::runtime_error("usage: policy step.onnx [TARGET_RETURN] < steps.txt");
    Policy policy(words[1], count > 2 ? words[2] : "");
    std::cout.precision(9);
    for (std::string line; std::getline(std::cin, line);) {
        if (line == "reset") {
            policy.reset();
            continue;
        }
        std::istringstream numbers(line);
        float reward;
        numbers >> reward;
        const std::vector<float> observation{std::istream_iterator<float>(numbers), {}};
        for (const float each : policy.act(observation, reward)) std::cout << each << ' ';
        std::cout << '\n';
    }
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
