// C++ before and after main: a static object's constructor makes 15 x 55 B with new[], a function's static one block of 29 B,
// destructors give both back. operator new comes from libstdc++, which allocates 72704 B for itself when it is loaded.
// totals: allocated=854/16 freed=854/16 current=0/0 peak=854/16
// runtime: libstdc++
class Holder {
  public:
    Holder() {
        for (auto &block : blocks)
            block = new char[55]; //@ allocated=825/15 peak=825/15
    }
    ~Holder() {
        for (auto *block : blocks)
            delete[] block;
    }

  private:
    char *volatile blocks[15];
};

class Late {
  public:
    Late() : block(new char[29]) {} //@ allocated=29/1 peak=29/1
    ~Late() { delete[] block; }
    char *volatile block;
};

static Holder holder;

static Late &late() {
    static Late instance;
    return instance;
}

int main() {
    return late().block == nullptr;
}
